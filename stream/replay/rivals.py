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
    mean_price: float
    """Mean price of the rival."""


class Rivals:
    """Counts of lost slots by winner."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[int, float]] = {}

    @property
    def total(self) -> int:
        """Number of lost slots."""
        return sum(times for times, _ in self._sums.values())

    def add(self, campaign_id: str, price: float) -> None:
        """Count a slot of a winner at a price."""
        name = campaign_id if campaign_id in self._sums or len(self._sums) < MAX_RIVALS else OTHERS
        times, prices = self._sums.get(name, (0, 0.0))
        self._sums[name] = times + 1, prices + price

    def ranked(self) -> tuple[Rival, ...]:
        """Return the rivals, the most slots first."""
        total = self.total
        ranked = sorted(self._sums.items(), key=lambda pair: (-pair[1][0], pair[0]))
        return tuple(
            Rival(campaign_id=name, times=times, share=times / total, mean_price=prices / times)
            for name, (times, prices) in ranked
        )
