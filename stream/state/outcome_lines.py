"""Outcome lines: what became of each item of a page, as `decision-outcomes` states it."""

from collections.abc import Mapping, Sequence

from clickscore.schemas.leases import MONEY_DECIMALS, unit_price
from clickscore.schemas.open_decisions import CART, CLICK, IMPRESSION, PURCHASE, OpenDecision, OrderLine
from clickscore.schemas.outcomes import ChargeReason, LineOutcome
from clickscore.stream.state.attribution import Orders, PageLine, find_slot


def list_position(decision: OpenDecision, line: int) -> tuple[str, int | None]:
    """Return the name of the list of a line, and the position in it; no position for an ad beside the lists.

    Args:
        decision: The decision.
        line: Line of the page.
    """
    first = 0
    for name, size in decision.shelves:
        if line < first + size:
            return name, line - first
        first += size
    return "", None


def placement_of(decision: OpenDecision, line: int) -> str:
    """Return the placement for which a line counts: the ad placement of a sold slot, or else the list.

    Args:
        decision: The decision.
        line: Line of the page.
    """
    slot = find_slot(decision, line)
    return slot.placement if slot else list_position(decision, line)[0]


def make_lines(
    decision: OpenDecision, index: int, orders: Orders, invalid_clicks: Mapping[bytes, ChargeReason]
) -> tuple[LineOutcome, ...]:
    """Return the lines of a decision that have a reaction or an order, from top to bottom.

    Args:
        decision: The decision.
        index: Index of the decision in the user's ledger.
        orders: Orders by the line that brought them.
        invalid_clicks: Reason of each invalid click, by fingerprint.
    """
    items = {reaction.line: reaction.item_id for reaction in decision.reactions}
    for (owner, line), brought in orders.items():
        if owner == index:
            items.setdefault(line, brought[0].item_id)
    return tuple(
        _make_line(decision, PageLine(index, line), items[line], orders, invalid_clicks) for line in sorted(items)
    )


def _make_line(
    decision: OpenDecision,
    line: PageLine,
    item_id: str,
    orders: Orders,
    invalid_clicks: Mapping[bytes, ChargeReason],
) -> LineOutcome:
    """Return what became of a line.

    Args:
        decision: The decision.
        line: The line.
        item_id: Its item.
        orders: Orders by the line that brought them.
        invalid_clicks: Reason of each invalid click, by fingerprint.
    """
    slot = find_slot(decision, line.line)
    reactions = [reaction for reaction in decision.reactions if reaction.line == line.line]
    clicks = [reaction for reaction in reactions if reaction.kind == CLICK]
    brought: Sequence[OrderLine] = orders.get(line, ())
    purchases = [order for order in brought if order.kind == PURCHASE]
    gross = net = 0.0
    if slot is not None and decision.billing:
        bill = decision.billing[decision.slots.index(slot)]
        gross = round(bill.events * unit_price(slot.price, slot.bid_per), MONEY_DECIMALS)
        net = bill.net
    return LineOutcome(
        item_id=item_id,
        placement=placement_of(decision, line.line),
        position=list_position(decision, line.line)[1],
        campaign_id=slot.campaign_id if slot else None,
        impressions=sum([reaction.kind == IMPRESSION for reaction in reactions]),
        clicks=len(clicks),
        valid_clicks=sum([click.fingerprint not in invalid_clicks for click in clicks]),
        carts=sum([order.kind == CART for order in brought]),
        purchases=len(purchases),
        revenue=round(sum([order.revenue for order in purchases]), MONEY_DECIMALS),
        gross=gross,
        net=net,
    )
