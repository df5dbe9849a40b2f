"""Rivals: lost slots of a campaign by winner, with the price, in bounded memory."""

import msgspec

MAX_RIVALS = 1_000
"""Number of rivals counted by name; later rivals are counted together."""

OTHERS = "(others)"
"""Name of all rivals beyond the limit."""


class Rival(msgspec.Struct, frozen=True, kw_only=True):
    """A campaign with slots wanted by another campaign."""

    campaign_id: str
    times: int
    """Number of slots."""
    share: float
    """Share of all lost slots."""
    mean_price: float | None
    """Mean price of the rival on these slots, as far as they were charged; null where none was: machines do not pay."""


class Rivals:
    """Counts of lost slots by winner."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[int, int, float]] = {}  # slots, charged slots and their prices

    @property
    def total(self) -> int:
        """Number of lost slots."""
        return sum(times for times, _, _ in self._sums.values())

    def add(self, campaign_id: str, price: float, *, is_charged: bool) -> None:
        """Count a slot of a winner.

        Args:
            campaign_id: The winner.
            price: Price of the slot.
            is_charged: Whether the price is charged: a machine's slot is free.
        """
        name = campaign_id if campaign_id in self._sums or len(self._sums) < MAX_RIVALS else OTHERS
        times, charged, prices = self._sums.get(name, (0, 0, 0.0))
        self._sums[name] = times + 1, charged + is_charged, prices + price * is_charged

    def ranked(self) -> tuple[Rival, ...]:
        """Return the rivals, the most slots first."""
        total = self.total
        ranked = sorted(self._sums.items(), key=lambda pair: (-pair[1][0], pair[0]))
        return tuple(
            Rival(campaign_id=name, times=times, share=times / total, mean_price=prices / charged if charged else None)
            for name, (times, charged, prices) in ranked
        )
