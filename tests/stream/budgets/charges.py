"""Charges of a campaign, for tests of budgets."""

from clickscore.schemas.leases import MICROS
from clickscore.schemas.outcomes import AdCharge


def make_charge(amount: int, campaign_id: str = "tea") -> AdCharge:
    """Return a charge of a click, in millionths."""
    return AdCharge(
        charge_id="decision/0/0",
        campaign_id=campaign_id,
        decision_id="decision",
        slot=0,
        placement="beside",
        bid_per="click",
        ts=0,
        gross=amount / MICROS,
        net=amount / MICROS,
        reason="charged",
    )
