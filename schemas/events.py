"""Events: the actions of shoppers, as records of `clickstream-events`.

The structs form a tagged union on `type`. Decoding validates the fields. Rules for compatibility: unknown
fields are skipped, new fields have defaults, and the type of a field never changes.
"""

from typing import Annotated

import msgspec

from clickscore.schemas.clients import Client
from clickscore.schemas.field_types import (
    MAX_PRICE,
    MAX_QUANTITY,
    NAME_PATTERN,
    NAME_WORDS,
    YEAR_2000_MS,
    YEAR_9999_MS,
    EventTime,
    Id,
    LogOffset,
)
from clickscore.schemas.handover import Handover
from clickscore.schemas.json_depth import check_depth
from clickscore.schemas.leases import BudgetLease, SpendReport
from clickscore.schemas.purposes import Purpose
from clickscore.schemas.rollouts import EpochRollout

NANOSECONDS_FROM = 10**17
"""Numbers from here on are nanoseconds: as microseconds they mean a time after the year 5138."""

Price = Annotated[float, msgspec.Meta(ge=0, le=MAX_PRICE)]
Word = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
"""Short name: of a region, a customer group, a flag."""
Position = Annotated[int, msgspec.Meta(ge=0)]
ShelfName = Annotated[str, msgspec.Meta(pattern=NAME_PATTERN, extra=NAME_WORDS)]
"""Name of a shelf of a page."""
MAX_SHELVES = 16
"""Shelves of a page at most."""


class UserRecord(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", gc=False):
    """Fields of every record of a user. `ts` is the event time."""

    event_id: Id
    user_id: Id
    ts: EventTime


class Event(UserRecord, frozen=True, kw_only=True, gc=False):
    """Fields of every event. `session_id` is the client's name for the session, if any."""

    session_id: Annotated[str, msgspec.Meta(max_length=256)] | None = None
    decision_id: Annotated[str, msgspec.Meta(max_length=256)] | None = None
    """Id of the decision behind this interaction."""
    position: Position | None = None
    """Position of the item in the decision, from 0."""
    campaign_id: Annotated[str, msgspec.Meta(max_length=256)] | None = None
    """Campaign of the ad that was shown or clicked, as the decision names it: an impression counts for its caps."""
    client: Client | msgspec.UnsetType = msgspec.UNSET
    """Class of the user, where the sender knows it: a bot or an agent does not count as a shopper."""
    user_agent: Annotated[str, msgspec.Meta(max_length=2048)] | msgspec.UnsetType = msgspec.UNSET
    """User agent of the request, to recognise bots and agents; it is not kept."""
    region: Word | msgspec.UnsetType = msgspec.UNSET
    """Region of the user, as the catalogue names it in `regions`; it is not kept."""
    customer_group: Word | msgspec.UnsetType = msgspec.UNSET
    """Customer group of the user, as the catalogue names it in `groups`; it is not kept."""
    placements: Annotated[tuple[ShelfName, ...], msgspec.Meta(max_length=MAX_SHELVES)] | msgspec.UnsetType = (
        msgspec.UNSET
    )
    """Shelves of the page, from top to bottom, in place of those that the policy names for the event; not kept."""


class ItemEvent(Event, frozen=True, kw_only=True, gc=False):
    """An event on an item."""

    item_id: Id
    price: Price | None = None
    category: Annotated[str, msgspec.Meta(max_length=256)] | None = None


class View(ItemEvent, frozen=True, kw_only=True, tag="view", gc=False):
    """An item's page was opened."""


class Cart(ItemEvent, frozen=True, kw_only=True, tag="cart", gc=False):
    """An item was put into the cart."""


class RemoveFromCart(ItemEvent, frozen=True, kw_only=True, tag="remove_from_cart", gc=False):
    """An item was taken out of the cart."""


class Favourite(ItemEvent, frozen=True, kw_only=True, tag="favourite", gc=False):
    """An item was put on the wish list."""


class Purchase(ItemEvent, frozen=True, kw_only=True, tag="purchase", gc=False):
    """An item was bought."""

    quantity: Annotated[int, msgspec.Meta(ge=1, le=MAX_QUANTITY)] = 1


class Impression(ItemEvent, frozen=True, kw_only=True, tag="impression", gc=False):
    """A recommended item or an ad was shown. The user did nothing, so an impression enters no session."""


class Click(ItemEvent, frozen=True, kw_only=True, tag="click", gc=False):
    """A recommended item or an ad was clicked."""


class Search(Event, frozen=True, kw_only=True, tag="search", gc=False):
    """The user searched."""

    query: Annotated[str, msgspec.Meta(max_length=1024)] = ""


class Consent(UserRecord, frozen=True, kw_only=True, tag="consent", gc=False):
    """The user granted or withdrew consent. It holds from the next record of the log on, and gets no decision.

    A purpose that is not named stays as it is. The purposes are lists of known words, and at least one must be named:
    a misspelt withdrawal is refused, not overlooked.
    """

    granted: tuple[Purpose, ...] = ()
    """Purposes to which the user agrees."""
    withdrawn: tuple[Purpose, ...] = ()
    """Purposes to which the user no longer agrees."""

    def __post_init__(self) -> None:
        """Check that the event says something, and nothing twice.

        Raises:
            ValueError: No purpose is named, or a purpose is both granted and withdrawn.
        """
        if not (self.granted or self.withdrawn):
            message = "no purpose is named in `granted` or `withdrawn`"
            raise ValueError(message)
        both = sorted(set(self.granted).intersection(self.withdrawn))
        if both:
            message = f"{', '.join(both)} cannot be both granted and withdrawn"
            raise ValueError(message)


class Erase(UserRecord, frozen=True, kw_only=True, tag="erase", gc=False):
    """The user is to be forgotten: the state of the user goes, what was said about consent included."""


class Identify(UserRecord, frozen=True, kw_only=True, tag="identify", gc=False):
    """The anonymous id `user_id` is the user `identified_as`, who takes over the session. It gets no decision.

    It hands over what is there at this record. Later events of the anonymous id are anonymous again.
    """

    identified_as: Id
    """The user behind the anonymous id."""

    def __post_init__(self) -> None:
        """Check that the event names two ids.

        Raises:
            ValueError: Both ids are the same.
        """
        if self.identified_as == self.user_id:
            message = "`user_id`, the anonymous id, and `identified_as`, the user, are the same"
            raise ValueError(message)


class Tick(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="tick", gc=False):
    """Passing of time in an idle partition. A tick only moves the watermark, and gets no decision."""

    ts: EventTime


class Epoch(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="epoch", gc=False):
    """What the decisions on the later events of the partition depend on, besides the events. Workers write epochs.

    An epoch takes effect at its own record, and only if its number is larger than the number of the partition's epoch.
    """

    number: Annotated[int, msgspec.Meta(ge=0, le=2**53)]
    """Number of the epoch in its partition, from 1. Number 0 stands for the reference data before the first record."""
    catalogue: LogOffset
    """Offset of `catalogue-items`: the records before this offset are in effect."""
    campaigns: LogOffset
    """Offset of `ad-campaigns`: the records before this offset are in effect."""
    bundle: Annotated[str, msgspec.Meta(max_length=256)] | None = None
    """Version of the scoring bundle; null without a model."""
    policy: Annotated[str, msgspec.Meta(max_length=256)] = ""
    """Version of the policy, as in the field `policy` of decisions."""
    settings: Annotated[str, msgspec.Meta(max_length=256)] = ""
    """Hash of the settings that decide the output."""
    rollout: EpochRollout | msgspec.UnsetType = msgspec.UNSET
    """Bundles from the bundle store; left out where each worker decides with the bundle of its own settings."""


Interaction = View | Cart | RemoveFromCart | Favourite | Purchase | Click | Search
"""Events of a session."""

AnyEvent = Interaction | Impression
"""Allowed events of a shopper's client."""

PrivacyRecord = Consent | Erase | Identify
"""Records about a user. They are no action on an item: they enter no session and get no decision."""

BudgetRecord = BudgetLease | SpendReport
"""Records of the budgets of campaigns. Workers write them, and they are no event of a user."""

AnyRecord = AnyEvent | PrivacyRecord | Handover | Tick | Epoch | BudgetRecord
"""Allowed records of `clickstream-events`."""

ACTIONS: tuple[str, ...] = (
    "",
    "view",
    "cart",
    "remove_from_cart",
    "favourite",
    "purchase",
    "click",
    "search",
)
"""Action names by code; code 0 is padding. Snapshots and bundles contain codes, so new names go to the end."""

ACTION_OF: dict[type[Event], int] = {
    View: 1,
    Cart: 2,
    RemoveFromCart: 3,
    Favourite: 4,
    Purchase: 5,
    Click: 6,
    Search: 7,
}
"""Action code by class of interaction."""

_decode_any = msgspec.json.Decoder(AnyRecord).decode


def decode_record(text: bytes) -> AnyRecord:
    """Return the record in JSON. Worker, replay and file readers all decode here, so they refuse the same bytes.

    Raises:
        msgspec.DecodeError: The JSON is malformed or nested too deeply, or it does not match the schema.
        UnicodeDecodeError: A text is not UTF-8.
    """
    check_depth(text)
    try:
        return _decode_any(text)
    except msgspec.ValidationError as exc:
        fault = _time_unit_fault(text) if str(exc).endswith("`$.ts`") else None
        if fault is None:
            raise
        raise msgspec.ValidationError(fault) from exc


EPOCH_PREFIX = b'{"type":"epoch"'
"""Beginning of an epoch as workers write it: a search for epochs decodes no other record."""


def read_epoch(value: bytes | None) -> Epoch | None:
    """Return the epoch in a record; None for any other record."""
    if value is None or not value.startswith(EPOCH_PREFIX):
        return None
    try:
        record = decode_record(value)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None  # becomes a dead letter
    return record if isinstance(record, Epoch) else None


def read_identify(value: bytes | None) -> Identify | None:
    """Return the `identify` event in a record; None for any other record."""
    if value is None or b'"identify"' not in value:
        return None
    try:
        record = decode_record(value)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None  # becomes a dead letter
    return record if isinstance(record, Identify) else None


class _EventTimeOnly(msgspec.Struct):
    ts: int | float


_decode_time = msgspec.json.Decoder(_EventTimeOnly).decode


def _time_unit_fault(text: bytes) -> str | None:
    """Return the likely unit of a wrong `ts` in words; None where `ts` is not the fault."""
    try:
        ts = _decode_time(text).ts
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return time_fault("ts", ts)


def time_fault(field: str, ts: float) -> str | None:
    """Return the likely unit of a wrong time in words; None for a good time.

    Args:
        field: Name of the field of the time.
        ts: The time, which should be ms since 1970.
    """
    if YEAR_2000_MS <= ts <= YEAR_9999_MS:
        return None
    if ts < 0:
        unit = "a time before 1970"
    elif ts < YEAR_2000_MS:
        unit = "seconds"
    else:
        unit = "microseconds" if ts < NANOSECONDS_FROM else "nanoseconds"
    rule = "it must be milliseconds since 1970, UTC, from the year 2000 to 9999"
    return f"{field} looks like {unit}: {rule} - at `$.{field}`"


encode_event = msgspec.json.Encoder().encode
