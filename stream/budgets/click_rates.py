"""Click rates: how often ads are clicked, learned from the outcomes of a partition.

The model says how likely a user opens any item next. How much of this an ad gets, nobody knows before it was shown. So
the outcomes of the newest days correct the expectation by a factor: the level of all ads together, and each campaign's
own factor, which is drawn towards the level while the campaign has few clicks.
"""

import msgspec

ENOUGH_CLICKS = 100
"""Clicks on all ads from which on the factors count: their level is known to 10 % then."""
PRIOR_CLICKS = 20
"""Strength of the level beside the clicks of a campaign: with as many clicks, both count the same."""
DAYS = 7
"""Days of outcomes that count: a whole week, since weekends differ. Older ones are forgotten. A replay that
begins in the middle of a log finds the same factors with `--warm-up-from earliest` alone, as for budgets."""
MAX_CAMPAIGNS = 10_000
"""Campaigns with outcomes that are remembered, at most: 2 MB. The one with the oldest outcome goes first."""


class DayClicks(msgspec.Struct, array_like=True, gc=False):
    """Outcomes of a day."""

    day: int
    """Day of the decisions, days since 1970, UTC."""
    clicks: int = 0
    """Number of seen ads that were clicked."""
    expected: float = 0.0
    """Number of clicks that the model expected."""


class ClickHistory(msgspec.Struct, array_like=True, gc=False):
    """Outcomes of the newest days, oldest day first."""

    days: list[DayClicks] = []

    def add(self, day: int, expected: float, *, is_clicked: bool) -> None:
        """Add the outcome of a seen ad.

        Args:
            day: Day of the decision, days since 1970, UTC.
            expected: Probability of a click that the model expected.
            is_clicked: Whether the ad was clicked.
        """
        row = next((row for row in self.days if row.day == day), None)
        if row is None:
            row = DayClicks(day)
            self.days = sorted([*self.days, row], key=lambda row: row.day)
            self.days = [row for row in self.days if row.day > self.days[-1].day - DAYS]
        row.clicks += is_clicked
        row.expected += expected

    def sums(self, newest_day: int) -> tuple[int, float]:
        """Return the clicks and the expected clicks of the days up to the newest day of the partition."""
        rows = [row for row in self.days if row.day > newest_day - DAYS]
        return sum([row.clicks for row in rows]), sum([row.expected for row in rows])


class ClickRates(msgspec.Struct, array_like=True):
    """Outcomes of a partition's ads."""

    total: ClickHistory = msgspec.field(default_factory=ClickHistory)
    campaigns: dict[str, ClickHistory] = {}

    def add(self, campaign_id: str, day: int, expected: float, *, is_clicked: bool) -> list[str]:
        """Add the outcome of a seen ad; return the campaigns whose history changed, one that is forgotten included.

        Args:
            campaign_id: Campaign of the ad.
            day: Day of the decision, days since 1970, UTC.
            expected: Probability of a click that the model expected.
            is_clicked: Whether the ad was clicked.
        """
        changed = [campaign_id]
        if campaign_id not in self.campaigns and len(self.campaigns) >= MAX_CAMPAIGNS:
            oldest = min(self.campaigns, key=lambda name: (self.campaigns[name].days[-1].day, name))
            del self.campaigns[oldest]
            changed.append(oldest)
        for history in (self.total, self.campaigns.setdefault(campaign_id, ClickHistory())):
            history.add(day, expected, is_clicked=is_clicked)
        return changed

    @property
    def level(self) -> float | None:
        """Clicks on all ads for each expected click; None before there are enough."""
        clicks, expected = self.total.sums(self._newest_day)
        return clicks / expected if clicks >= ENOUGH_CLICKS else None

    @property
    def _newest_day(self) -> int:
        return self.total.days[-1].day if self.total.days else 0

    def factor(self, campaign_id: str, level: float) -> float:
        """Return the factor on the expected click probability of a campaign.

        This is the mean of a gamma distribution that begins at the level (DuMouchel, Bayesian data mining in large
        frequency tables, The American Statistician 53, 1999).

        Args:
            campaign_id: The campaign.
            level: Factor of all ads.
        """
        history = self.campaigns.get(campaign_id)
        if history is None:
            return level
        clicks, expected = history.sums(self._newest_day)
        return (clicks + PRIOR_CLICKS) / (expected + PRIOR_CLICKS / level)
