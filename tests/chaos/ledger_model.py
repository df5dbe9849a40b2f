"""Ledger model: the outcomes and charges that must follow from published decisions and the log, from docs/semantics.md.

The model shares no code with the product. It knows campaigns without budgets, and pages with one list and ads beside.
"""

import heapq
from base64 import b64decode
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from tests.chaos.event_rules import PURPOSES, JsonObject
from tests.chaos.session_model import DAY_MS, MINUTE_MS, PartitionModel, event_hash

CLICK_WINDOW_MS = 30 * MINUTE_MS
ORDER_WINDOW_MS = DAY_MS
MAX_DECISIONS, MAX_REACTIONS, MAX_ORDERS = 32, 64, 64
CLOSED_BY_RECORD = 64
REPEAT_MS, FASTEST_CLICK_MS = 10_000, 200
DECIMALS = 9
KINDS = ("impression", "click", "cart", "purchase")
"""Names of the codes of reactions in hand-overs."""

Identity = tuple[int, int]
"""Partition and offset of the event that a decision answers."""


class Slot(NamedTuple):
    """A sold slot."""

    line: int
    placement: str
    campaign_id: str
    item_id: str
    bid_per: str
    price: float
    view_window_ms: int
    purchase_window_ms: int


class Page(NamedTuple):
    """A published decision."""

    user_id: str
    ts: int
    variant: str
    withheld: tuple[str, ...]
    items: tuple[str, ...]
    slots: tuple[Slot, ...]


class Reaction(NamedTuple):
    """An impression or a click."""

    kind: str
    line: int
    ts: int
    fingerprint: bytes
    item_id: str
    is_repeat: bool = False
    """Whether it repeats a click on a page that is forgotten."""


class Order(NamedTuple):
    """A cart or a purchase."""

    kind: str
    item_id: str
    ts: int
    revenue: float
    fingerprint: bytes
    page: Identity | None
    campaign_id: str | None


class Paid(NamedTuple):
    """What a slot has cost."""

    records: int = 0
    events: int = 0
    net: float = 0.0


@dataclass
class OpenPage:
    """A page whose reactions count."""

    identity: Identity
    page: Page
    slots: tuple[Slot, ...]
    reactions: list[Reaction] = field(default_factory=list[Reaction])
    paid: dict[int, Paid] = field(default_factory=dict[int, Paid])
    revisions: int = 0
    lines: list[JsonObject] = field(default_factory=list[JsonObject])
    """Lines of the newest outcome."""

    def line(self, item_id: str, campaign_id: str | None) -> int | None:
        """Return the line of an item; None where the page does not show the item."""
        if campaign_id:
            return next((s.line for s in self.slots if (s.campaign_id, s.item_id) == (campaign_id, item_id)), None)
        if item_id in self.page.items:
            return self.page.items.index(item_id)
        return next((slot.line for slot in self.slots if slot.item_id == item_id), None)

    def slot(self, line: int) -> Slot | None:
        return next((slot for slot in self.slots if slot.line == line), None)

    def order_window(self, line: int, kind: str) -> int:
        """Return the time after a reaction within which an order of its item counts, ms."""
        slot = self.slot(line)
        if kind == "click":
            return slot.purchase_window_ms if slot else ORDER_WINDOW_MS
        return slot.view_window_ms if slot else 0

    @property
    def ends_at(self) -> int:
        """Time after which nothing can change the outcome, ms."""
        ends = [reaction.ts + self.order_window(reaction.line, reaction.kind) for reaction in self.reactions]
        return max([self.page.ts + CLICK_WINDOW_MS, *ends])

    @property
    def due_minute(self) -> int:
        """First full minute, ms, from which the next window is over."""
        due_at = self.ends_at if self.revisions else self.page.ts + CLICK_WINDOW_MS
        return (due_at // MINUTE_MS + 1) * MINUTE_MS


@dataclass
class UserPages:
    """Open pages and orders of a user."""

    user_id: str
    pages: list[OpenPage] = field(default_factory=list[OpenPage])
    orders: list[Order] = field(default_factory=list[Order])

    def find(self, identity: Identity | None) -> OpenPage | None:
        return next((page for page in self.pages if page.identity == identity), None)

    def attributed(self) -> dict[tuple[Identity, int], list[Order]]:
        """Return the orders that each line of a page brought."""
        brought: dict[tuple[Identity, int], list[Order]] = defaultdict(list)
        for order in self.orders:
            line = self._named_line(order) or self._last_touch(order, "click") or self._last_touch(order, "impression")
            if line is not None:
                brought[line].append(order)
        return brought

    def _named_line(self, order: Order) -> tuple[Identity, int] | None:
        page = self.find(order.page)
        line = None if page is None else page.line(order.item_id, order.campaign_id)
        if page is None or line is None:
            return None
        touches = [reaction.ts for reaction in page.reactions if reaction.line == line and reaction.ts <= order.ts]
        latest = max(touches, default=page.page.ts)
        is_within = latest <= order.ts <= latest + page.order_window(line, "click")
        return (page.identity, line) if is_within else None

    def _last_touch(self, order: Order, kind: str) -> tuple[Identity, int] | None:
        touches = [
            (reaction.ts, page.page.ts, page.identity, reaction.line)
            for page in self.pages
            for reaction in page.reactions
            if (reaction.kind, reaction.item_id) == (kind, order.item_id)
            and 0 <= order.ts - reaction.ts <= (page.order_window(reaction.line, kind) or -1)
        ]
        return max(touches)[2:] if touches else None

    def invalid(self) -> dict[bytes, str]:
        """Return the reason why each invalid click does not count."""
        reasons: dict[bytes, str] = {}
        for page in self.pages:
            for click in page.reactions:
                if click.kind != "click":
                    continue
                seen = [
                    reaction.ts
                    for reaction in page.reactions
                    if (reaction.kind, reaction.line) == ("impression", click.line) and reaction.ts <= click.ts
                ]
                if not seen:
                    reasons[click.fingerprint] = "no impression"
                elif click.ts - min(seen) < FASTEST_CLICK_MS:
                    reasons[click.fingerprint] = "too fast"
        return dict.fromkeys(self.repeats(), "repeated") | reasons

    def repeats(self) -> set[bytes]:
        """Return the clicks that repeat a click, whatever else is wrong with them."""
        reactions = [reaction for page in self.pages for reaction in page.reactions]
        repeats = {reaction.fingerprint for reaction in reactions if reaction.is_repeat}
        newest: dict[str, int] = {}
        clicks = [(click.ts, click.fingerprint, click.item_id) for click in reactions if click.kind == "click"]
        for ts, fingerprint, item_id in sorted(clicks):
            if item_id in newest and ts - newest[item_id] < REPEAT_MS:
                repeats.add(fingerprint)
            newest[item_id] = ts
        return repeats


class LedgerModel:
    """Open pages of a partition, and the outcomes and charges that must be published."""

    def __init__(
        self,
        source: str,
        pages: Mapping[Identity, Page],
        outcomes: dict[str, JsonObject],
        charges: dict[str, JsonObject],
    ) -> None:
        """Start empty.

        Args:
            source: `TOPIC-PARTITION` of the events.
            pages: Published decisions of all partitions.
            outcomes: Receives the records of `decision-outcomes`, by decision and revision.
            charges: Receives the records of `ad-charges`, by id.
        """
        self._topic, _, partition = source.rpartition("-")
        self._partition = int(partition)
        self._pages = pages
        self._users: dict[str, UserPages] = {}
        self._ends: list[tuple[int, str]] = []  # a heap of full minutes and users; only the newest of a user counts
        self._end_of: dict[str, int] = {}
        self._outcomes, self._charges = outcomes, charges
        self.handed: dict[int, UserPages] = {}
        """Open pages and orders that each `identify` event handed over, by offset; empty ones for none."""

    def add(self, model: PartitionModel) -> None:
        """Take the newest record of a partition, after the model of its sessions has taken the record.

        Args:
            model: The model of sessions.
        """
        event, outcome, offset = model.event, model.outcome, model.offset
        if event is None or outcome == "epoch" or (outcome == "repeated" and event["type"] in ("consent", "handover")):
            return
        self.advance(model.watermark)
        withheld = model.withheld(event["user_id"]) if "user_id" in event else frozenset[str]()
        if outcome in ("consent", "identify", "handover") and "personalisation" in withheld:
            self.forget(event["user_id"])
        elif outcome == "consent" and "ads" in withheld:
            self.forget_ads(event["user_id"])
        elif outcome == "erase":
            self.forget(event["user_id"])
        elif outcome == "handover" and not model.is_erased(event):
            self.receive(event, may_show_ads="ads" not in withheld)
        if outcome == "identify":
            self.hand_over(event["user_id"], offset)
        if outcome in ("decided", "late"):
            self._decide(event, offset, model.decided[f"{model.source}-{offset}"].withheld)

    def _decide(self, event: JsonObject, offset: int, withheld: Sequence[str]) -> None:
        """Take an event that was decided on.

        Args:
            event: The event.
            offset: Its offset.
            withheld: Purposes without the user's consent.
        """
        if "personalisation" in withheld:
            self.forget(event["user_id"])
            return
        if "ads" in withheld:
            self.forget_ads(event["user_id"])
        self.join(event, offset)

    def advance(self, watermark: int) -> None:
        """Close the windows that are over, of so many users at most: by minute, then by user id."""
        closed = 0
        while self._ends and self._ends[0][0] <= watermark and closed < CLOSED_BY_RECORD:
            minute, user_id = heapq.heappop(self._ends)
            if self._end_of.get(user_id) != minute:
                continue
            user = self._users.get(user_id, UserPages(user_id))
            due = [page for page in user.pages if page.due_minute <= minute]
            for page in due:
                if not page.revisions:
                    self._publish(user, page)
            self._forget_pages(user, [page for page in due if page.ends_at < minute])
            closed += bool(due)
            self._set_end(user_id)

    def forget(self, user_id: str) -> None:
        self._users.pop(user_id, None)

    def forget_ads(self, user_id: str) -> None:
        for page in self._users.get(user_id, UserPages(user_id)).pages:
            page.slots, page.paid = (), {}

    def join(self, event: JsonObject, offset: int) -> None:
        """Join an event to the pages of its user, and open the page of its decision.

        Args:
            event: The event.
            offset: Its offset.
        """
        user = self._users.setdefault(event["user_id"], UserPages(event["user_id"]))
        identity = self._identity(event.get("decision_id"))
        if event["type"] in ("impression", "click"):
            self._react(user, event, user.find(identity))
        elif event["type"] in ("cart", "purchase"):
            self._order(user, event, user.find(identity))
        page = self._pages.get((self._partition, offset))
        if event["type"] != "impression" and page is not None:
            slots = () if "ads" in page.withheld else page.slots
            user.pages.append(OpenPage((self._partition, offset), page, slots))
            if len(user.pages) > MAX_DECISIONS:
                self._evict(user)
        self._set_end(event["user_id"])

    def _identity(self, decision_id: str | None) -> Identity | None:
        source, _, offset = (decision_id or "").removesuffix("-ad").rpartition("-")
        topic, _, partition = source.rpartition("-")
        return (int(partition), int(offset)) if topic == self._topic and (partition + offset).isdigit() else None

    def _react(self, user: UserPages, event: JsonObject, page: OpenPage | None) -> None:
        line = None if page is None else page.line(event["item_id"], event.get("campaign_id"))
        if page is None or line is None or not 0 <= event["ts"] - page.page.ts <= CLICK_WINDOW_MS:
            return
        fingerprint = event_hash(event["event_id"])
        if len(page.reactions) >= MAX_REACTIONS or fingerprint in [r.fingerprint for r in page.reactions]:
            return
        page.reactions.append(Reaction(event["type"], line, event["ts"], fingerprint, event["item_id"]))
        self._settle(user, event["ts"])

    def _order(self, user: UserPages, event: JsonObject, page: OpenPage | None) -> None:
        fingerprint, item_id = event_hash(event["event_id"]), event["item_id"]
        is_shown = any(open_page.line(item_id, None) is not None for open_page in user.pages)
        is_known = fingerprint in [order.fingerprint for order in user.orders]
        if not is_shown or is_known or len(user.orders) >= MAX_ORDERS:
            return
        quantity = (event.get("quantity") or 1) if event["type"] == "purchase" else 0
        revenue = round((event.get("price") or 0.0) * quantity, DECIMALS)
        identity = page.identity if page else None
        order = Order(event["type"], item_id, event["ts"], revenue, fingerprint, identity, event.get("campaign_id"))
        user.orders.append(order)
        self._settle(user, event["ts"])

    def _settle(self, user: UserPages, ts: int) -> None:
        """Write the charges and corrections that a change of a user's pages leads to.

        Args:
            user: The user.
            ts: Event time of the event behind the change, ms.
        """
        brought, invalid = user.attributed(), user.invalid()
        for page in user.pages:
            for number, slot in enumerate(page.slots):
                self._charge(page, number, ts, list(_billed(page, slot, brought, invalid)))
        for page in user.pages:
            if page.revisions:
                self._publish(user, page)

    def _charge(self, page: OpenPage, number: int, ts: int, reasons: Sequence[str | None]) -> None:
        """Note the charge of a slot, if its costs have changed.

        Args:
            page: Page of the slot.
            number: Index of the slot.
            ts: Event time of the event behind the change, ms.
            reasons: For each event that the campaign bids for, why it does not count, or None.
        """
        slot, paid = page.slots[number], page.paid.get(number, Paid())
        valid = reasons.count(None)
        net = _unit(slot) if valid else 0.0
        if (len(reasons), net) == (paid.events, paid.net):
            return
        newest = (reasons[-1] or ("charged" if valid == 1 else "repeated")) if reasons else "order moved"
        decision_id = self._decision_id(page)
        charge_id = f"{decision_id}/{number}/{paid.records}"
        self._charges[charge_id] = {
            "type": "charge",
            "charge_id": charge_id,
            "campaign_id": slot.campaign_id,
            "decision_id": decision_id,
            "slot": number,
            "placement": slot.placement,
            "bid_per": slot.bid_per,
            "ts": ts,
            "gross": round((len(reasons) - paid.events) * _unit(slot), DECIMALS),
            "net": round(net - paid.net, DECIMALS),
            "reason": newest,
        }
        page.paid[number] = Paid(paid.records + 1, len(reasons), net)

    def _publish(self, user: UserPages, page: OpenPage) -> None:
        """Note the outcome of a page, unless the newest one says the same."""
        lines = list(_lines(user, page)) if page.reactions or user.orders else []
        if page.revisions and lines == page.lines:
            return
        decision_id = self._decision_id(page)
        outcome: JsonObject = {
            "type": "outcome",
            "decision_id": decision_id,
            "user_id": user.user_id,
            "ts": page.page.ts,
            "variant": page.page.variant,
            "revision": page.revisions,
            "withheld": list(page.page.withheld),
            "lines": lines,
        }
        self._outcomes[f"{decision_id}/{page.revisions}"] = {
            name: content for name, content in outcome.items() if content not in (0, [])
        }
        page.revisions, page.lines = page.revisions + 1, lines

    def _decision_id(self, page: OpenPage) -> str:
        return f"{self._topic}-{page.identity[0]}-{page.identity[1]}"

    def _evict(self, user: UserPages) -> None:
        """Close the oldest page without a reaction, or else the oldest page, but never the newest."""
        page = next((page for page in user.pages[:-1] if not page.reactions), user.pages[0])
        if not page.revisions:
            self._publish(user, page)
        self._forget_pages(user, [page])

    def _forget_pages(self, user: UserPages, pages: Sequence[OpenPage]) -> None:
        """Forget pages, with the orders that belong to no other page. A repeated click stays one."""
        if not pages:
            return
        if len(pages) == len(user.pages):
            user.pages, user.orders = [], []
            return
        identities = [page.identity for page in pages]
        repeats, brought = user.repeats(), user.attributed()
        user.pages = [page for page in user.pages if page.identity not in identities]
        if not user.orders and not any(page.reactions for page in pages):
            return
        gone = [order for (owner, _), orders in brought.items() if owner in identities for order in orders]
        for page in user.pages:
            page.reactions = [r._replace(is_repeat=r.fingerprint in repeats) for r in page.reactions]
        oldest = min(page.page.ts for page in user.pages)
        user.orders = [order for order in user.orders if order not in gone and order.ts >= oldest]

    def _set_end(self, user_id: str) -> None:
        pages = self._users.get(user_id, UserPages(user_id)).pages
        end = min([page.due_minute for page in pages], default=-1)
        if end != self._end_of.get(user_id) and pages:
            heapq.heappush(self._ends, (end, user_id))
        self._end_of[user_id] = end

    def hand_over(self, user_id: str, offset: int) -> None:
        """Take the open pages of an anonymous id out.

        Args:
            user_id: The anonymous id.
            offset: Offset of the `identify` event.
        """
        self.handed[offset] = self._users.pop(user_id, UserPages(user_id))

    def receive(self, handover: JsonObject, *, may_show_ads: bool) -> None:
        """Add the open pages of an anonymous id to those of the user.

        Args:
            handover: The hand-over.
            may_show_ads: Whether the user consents to ads.
        """
        if "ledger" not in handover:
            return
        user_id, (pages, orders, *_) = handover["user_id"], msgspec.msgpack.decode(b64decode(handover["ledger"]))
        user = self._users.setdefault(user_id, UserPages(user_id))
        handed = [self._read_page(fields, may_show_ads=may_show_ads) for fields in pages]
        known = [order.fingerprint for order in user.orders]
        user.pages = [*handed, *user.pages]
        arrived = [order for order in map(_read_order, orders) if order.fingerprint not in known]
        user.orders = [*user.orders, *arrived][: max(MAX_ORDERS, len(user.orders))]
        while len(user.pages) > MAX_DECISIONS:
            self._evict(user)
        self._settle(user, handover["ts"])
        self._set_end(user_id)

    def _read_page(self, fields: list[Any], *, may_show_ads: bool) -> OpenPage:
        """Return a page of a hand-over: what happened to it is in the record, what it shows is published."""
        partition, offset, *_, slots, reactions, billing, revisions, _, _ = fields
        page = self._pages[partition, offset]
        opened = OpenPage((partition, offset), page, page.slots if slots and may_show_ads else ())
        for kind, line, ts, fingerprint, item_id, is_repeat in reactions:
            opened.reactions.append(Reaction(KINDS[kind], line, ts, fingerprint, item_id, is_repeat))
        if opened.slots:
            opened.paid = {number: Paid(*fields[:3]) for number, fields in enumerate(billing)}
        opened.revisions = revisions
        if revisions:
            opened.lines = self._outcomes[f"{self._decision_id(opened)}/{revisions - 1}"].get("lines", [])
        return opened


def carries(handover: JsonObject, handed: UserPages) -> bool:
    """Return whether a hand-over has exactly the open pages and orders of the anonymous id.

    Args:
        handover: The hand-over.
        handed: What must be in it.
    """
    if "ledger" not in handover or not handed.pages:
        return "ledger" not in handover and not handed.pages
    pages, orders, *_ = msgspec.msgpack.decode(b64decode(handover["ledger"]))
    return (
        list(map(_read_order, orders)) == handed.orders
        and len(pages) == len(handed.pages)
        and all(map(_is_page, pages, handed.pages))
    )


def _is_page(fields: Sequence[Any], page: OpenPage) -> bool:
    """Return whether the fields of a hand-over say what the model knows of a page."""
    partition, offset, ts, variant, _, _, slots, reactions, billing, revisions, *_ = fields
    paid = [Paid(*each[:3]) for each in billing] or [Paid()] * len(slots)
    return (
        ((partition, offset), ts, variant, revisions)
        == (page.identity, page.page.ts, page.page.variant, page.revisions)
        and [Reaction(KINDS[kind], *rest) for kind, *rest in reactions] == page.reactions
        and [Slot(*each[:8]) for each in slots] == list(page.slots)
        and paid == [page.paid.get(number, Paid()) for number in range(len(page.slots))]
    )


def _read_order(fields: Sequence[Any]) -> Order:
    kind, item_id, ts, revenue, fingerprint, partition, offset, campaign_id = fields
    identity = (partition, offset) if partition >= 0 else None
    return Order(KINDS[kind], item_id, ts, revenue, fingerprint, identity, campaign_id or None)


def _unit(slot: Slot) -> float:
    return round(slot.price / 1000, DECIMALS) if slot.bid_per == "thousand_impressions" else slot.price


def _billed(
    page: OpenPage, slot: Slot, brought: Mapping[tuple[Identity, int], Sequence[Order]], invalid: Mapping[bytes, str]
) -> Iterator[str | None]:
    """Yield for each event that a campaign bids for why it does not count, or None.

    Args:
        page: Page of the slot.
        slot: The slot.
        brought: Orders by line.
        invalid: Reasons of invalid clicks.
    """
    if slot.bid_per == "order":
        yield from (None for order in brought.get((page.identity, slot.line), ()) if order.kind == "purchase")
        return
    kind = "click" if slot.bid_per == "click" else "impression"
    for reaction in page.reactions:
        if (reaction.kind, reaction.line) == (kind, slot.line):
            yield invalid.get(reaction.fingerprint)


def _lines(user: UserPages, page: OpenPage) -> Iterator[JsonObject]:
    """Yield the lines of an outcome: those with a reaction or an order."""
    brought, invalid = user.attributed(), user.invalid()
    items = {reaction.line: reaction.item_id for reaction in page.reactions}
    for (owner, line), orders in brought.items():
        if owner == page.identity:
            items.setdefault(line, orders[0].item_id)
    for line in sorted(items):
        slot = page.slot(line)
        reactions = [reaction for reaction in page.reactions if reaction.line == line]
        clicks = [reaction for reaction in reactions if reaction.kind == "click"]
        orders = brought.get((page.identity, line), [])
        purchases = [order for order in orders if order.kind == "purchase"]
        paid = page.paid.get(page.slots.index(slot), Paid()) if slot else Paid()
        counts = {
            "item_id": items[line],
            "placement": slot.placement if slot else "list" if line < len(page.page.items) else "",
            "position": line if line < len(page.page.items) else None,
            "campaign_id": slot.campaign_id if slot else None,
            "impressions": len(reactions) - len(clicks),
            "clicks": len(clicks),
            "valid_clicks": sum(click.fingerprint not in invalid for click in clicks),
            "carts": len(orders) - len(purchases),
            "purchases": len(purchases),
            "revenue": round(sum(order.revenue for order in purchases), DECIMALS),
            "gross": round(paid.events * _unit(slot), DECIMALS) if slot else 0.0,
            "net": paid.net,
        }
        yield {
            name: content
            for name, content in counts.items()
            if content is not None and (content != 0 or name == "position")
        }


def read_pages(recommendations: Mapping[str, JsonObject], ads: Mapping[str, JsonObject]) -> dict[Identity, Page]:
    """Return the published pages.

    Args:
        recommendations: Published decisions by id.
        ads: Published decisions on ads by id.
    """
    pages: dict[Identity, Page] = {}
    for decision_id, decision in recommendations.items():
        source, _, offset = decision_id.rpartition("-")
        items = tuple(choice["item_id"] for choice in decision["items"])
        is_fallback = decision["variant"] == "model" and not any(c["reason"] == "model" for c in decision["items"])
        slots = [
            Slot(
                len(items) + number,
                slot["placement"],
                slot["campaign_id"],
                slot["item_id"],
                slot["bid_per"],
                slot["price"],
                slot.get("view_window_ms", 0),
                slot.get("purchase_window_ms", ORDER_WINDOW_MS),
            )
            for number, slot in enumerate(ads.get(f"{decision_id}-ad", {}).get("slots", ()))
        ]
        pages[int(source.rpartition("-")[2]), int(offset)] = Page(
            decision["user_id"],
            decision["ts"],
            "fallback" if is_fallback else decision["variant"],
            tuple(purpose for purpose in PURPOSES if purpose in decision.get("withheld", [])),
            items,
            tuple(slots),
        )
    return pages
