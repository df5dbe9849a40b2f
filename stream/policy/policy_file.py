"""Policy file: what may be shown, how often and where, as a TOML file with a version and an owner.

A field that is left out has the value of the policy `default`. The values of left-out fields never change, so a file
means the same after an upgrade. Decisions name the policy as `VERSION@HASH`, where the hash is over the content.
"""

import functools
from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
import xxhash

from clickscore.schemas.events import ShelfName
from clickscore.schemas.field_types import Id
from clickscore.schemas.seen_items import MAX_IMPRESSIONS
from clickscore.schemas.toml_text import parse_toml
from clickscore.schemas.value_faults import describe_fault
from clickscore.stream.errors import PolicyError
from clickscore.stream.policy.ad_policy import Ads, ad_contradictions
from clickscore.stream.policy.goal_policy import Goals, goal_contradictions
from clickscore.stream.policy.shelf_policy import Pages, ShelfTable, job_of, shelf_contradictions
from clickscore.stream.settings import PolicySettings, SessionSettings, Settings
from clickscore.stream.shipped_files import ShippedFiles

HASH_DIGITS = 8
"""Hexadecimal digits of the content hash in a label: two policies of a shop share a label with probability 2**-32."""

MAX_FACTOR = 10
"""Largest factor of a boost, of a single rule and of all together; the smallest is 1 / 10."""

ANY_NUMBER = 1_000
"""Largest number of places that a policy may state: no list is longer."""

ANY_RATIO = 1e6
"""Largest ratio of prices in a policy: no two prices of a shop are further apart. TOML has `inf`, too."""

Count = Annotated[int, msgspec.Meta(ge=0, le=ANY_NUMBER)]
Places = Annotated[int, msgspec.Meta(ge=1, le=ANY_NUMBER)]
Factor = Annotated[float, msgspec.Meta(ge=1 / MAX_FACTOR, le=MAX_FACTOR)]
Impressions = Annotated[int, msgspec.Meta(ge=1, le=MAX_IMPRESSIONS)]
Days = Annotated[int, msgspec.Meta(ge=1, le=3650)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
Names = Annotated[tuple[Name, ...], msgspec.Meta(max_length=1000)]
Factors = Annotated[dict[Name, Factor], msgspec.Meta(max_length=1000)]


_VERSION_WORDS = {"words": "have at most 64 small letters, digits, `.`, `_` and `-`, a letter or a digit first"}
"""Pattern of a version, for messages."""


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of a policy file; a field that nothing reads is refused."""


class Hide(_Table, frozen=True, kw_only=True):
    """Items that are not shown."""

    @property
    def lets_return(self) -> bool:
        """Whether bought items of some categories are shown again."""
        return bool(self.bought_again or self.again_after)

    out_of_stock: bool = True
    """Whether items without stock are hidden."""
    bought: bool = True
    """Whether items that the user has bought are hidden."""
    bought_again: Names = ()
    """Categories that people buy again: a bought item is hidden only in the session of the purchase."""
    again_after: Annotated[dict[Name, Days], msgspec.Meta(max_length=1000)] = {}
    """For other categories the days after which a bought item is shown again: their usual interval."""
    on_screen: bool = True
    """Whether the item of the page that the user looks at is hidden."""
    in_cart: bool = True
    """Whether items that are in the cart are hidden."""
    seen: Impressions | None = None
    """Number of impressions in the session without a click after which an item is hidden; by default any number."""
    unavailable: bool = True
    """Whether items are hidden that are not sold in the user's region or to the user's customer group."""
    flags: Names = ()
    """Items with any of these flags are hidden."""
    categories: Names = ()
    """Items of these categories are hidden."""
    brands: Names = ()
    """Items of these brands are hidden."""


class Only(_Table, frozen=True, kw_only=True):
    """Items that alone are shown."""

    categories: Names = ()
    """Only items of these categories are shown; empty for all."""
    brands: Names = ()
    """Only items of these brands are shown; empty for all."""
    relevance: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
    """Lowest relevance of a candidate of the model: 1 is as relevant as the best candidate, 0.1 a tenth."""


class PriceBand(_Table, frozen=True, kw_only=True):
    """Prices around the price of the item on screen; without an item on screen every price is shown."""

    lowest: Annotated[float, msgspec.Meta(ge=0, le=ANY_RATIO)] = 0.0
    """Lowest price, as a share of the price of the item on screen."""
    highest: Annotated[float, msgspec.Meta(gt=0, le=ANY_RATIO)] | None = None
    """Highest price, as a share of the price of the item on screen; by default any."""


class Limit(_Table, frozen=True, kw_only=True):
    """Number of places that items of a kind may take."""

    reminders: Count = 3
    """Number of places for items that the user has already met in this session."""
    category: Places | None = None
    """Number of places for items of the same category; by default any."""
    brand: Places | None = None
    """Number of places for items of the same brand; by default any."""
    seller: Places | None = None
    """Number of places for items of the same seller; by default any."""


class Boost(_Table, frozen=True, kw_only=True):
    """Factors on the relevance of candidates: 2 doubles, 0.5 halves. Together they are at most 10, at least 1 / 10."""

    items: Factors = {}
    categories: Factors = {}
    brands: Factors = {}
    promoted: Factor = 1.0
    """Factor for items in a promotion."""
    margin: Factor = 1.0
    """Factor for an item that is all margin; an item with a margin of a half gets the square root."""
    fresh: Factor = 1.0
    """Factor for an item of which the event's time is the first day in the shop; it fades over `fresh_days`."""
    fresh_days: Annotated[int, msgspec.Meta(ge=1, le=365)] = 14
    """Days until an item is not fresh any more."""


class Pin(_Table, frozen=True, kw_only=True):
    """An item in a fixed place."""

    place: Places
    """Place in the list, from 1."""
    item: Id


class PolicyFile(_Table, frozen=True, kw_only=True):
    """Content of a policy file.

    Raises:
        ValueError: Two fields contradict each other.
    """

    version: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}\Z", extra=_VERSION_WORDS)]
    """Name and number of the policy, such as `autumn-3`."""
    owner: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    """Person or team who answers for the policy."""
    k: Places | None = None
    """Number of items in a recommendation; by default the setting `k`."""
    reasons: Annotated[int, msgspec.Meta(ge=0, le=50)] | None = None
    """Number of events named as reasons of an item, at most; by default the setting `reasons`."""
    diversity: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    """How much an item stands back for its likeness to items on earlier places: 0 not at all, near 1 above all."""
    hide: Hide = Hide()
    only: Only = Only()
    price_band: PriceBand = PriceBand()
    limit: Limit = Limit()
    boost: Boost = Boost()
    goals: Goals = Goals()
    pin: Annotated[tuple[Pin, ...], msgspec.Meta(max_length=100)] = ()
    """Items in fixed places."""
    ads: Ads = Ads()
    pages: Pages = Pages()
    """Shelves of the pages by event type; a page without shelves has one plain list."""
    shelves: Annotated[dict[ShelfName, ShelfTable], msgspec.Meta(max_length=100)] = {}
    """Shelves by name. A shelf that has the name of a job needs no table."""

    def __post_init__(self) -> None:
        """Refuse contradictions."""
        contradictions = list(_contradictions(self))
        if contradictions:
            raise ValueError("; ".join(contradictions))

    def size(self, settings: PolicySettings) -> int:
        """Return the number of items in a recommendation."""
        return self.k or settings.k

    def max_reasons(self, settings: PolicySettings) -> int:
        """Return the number of events named as reasons of an item, at most."""
        return settings.reasons if self.reasons is None else self.reasons

    def reserve(self, settings: PolicySettings) -> float:
        """Return the lowest expected value of a shown ad, in the currency of the bids."""
        return settings.reserve if self.ads.reserve is None else self.ads.reserve

    def check_settings(self, settings: SessionSettings) -> None:
        """Refuse settings that leave a rule of the policy without input.

        Raises:
            PolicyError: A rule needs a setting that is off.
        """
        if self.hide.seen is not None and not settings.max_seen:
            message = (
                f"the policy {self.label} has hide.seen = {self.hide.seen}, but the setting max_seen is 0, so that no "
                "impression is counted: set max_seen to 64 (CLICKSCORE_MAX_SEEN=64), or remove hide.seen"
            )
            raise PolicyError(message)

    @property
    def hash(self) -> str:
        """Hash of all fields, version and owner included. Comments, spaces and stated defaults do not change it."""
        fields = _without_defaults(self)
        return xxhash.xxh3_64_hexdigest(msgspec.json.encode(fields, order="sorted"))[:HASH_DIGITS]

    @property
    def label(self) -> str:
        """Version and content hash, as decisions name the policy."""
        return f"{self.version}@{self.hash}"


def _contradictions(policy: PolicyFile) -> Iterator[str]:
    """Yield a sentence for each contradiction within a policy."""
    yield from ad_contradictions(policy.ads, policy.k)
    yield from goal_contradictions(policy.goals, policy.shelves)
    yield from shelf_contradictions(policy.pages, policy.shelves)
    yield from _ad_shelf_contradictions(policy)
    for field in ("bought_again", "again_after"):
        if getattr(policy.hide, field) and not policy.hide.bought:
            yield f"hide.{field} lets bought items return, but hide.bought = false hides none: remove one of the two"
    yield from _return_contradictions(policy)
    for name in sorted({*policy.hide.bought_again}.intersection(policy.hide.again_after)):
        yield f"hide.bought_again and hide.again_after both say when items of {name!r} return: remove one of the two"
    for field in ("categories", "brands"):
        hidden, shown, boosts = (getattr(table, field) for table in (policy.hide, policy.only, policy.boost))
        for name in sorted(set(hidden) & set(shown)):
            yield f"hide.{field} hides {name!r}, but only.{field} shows it: remove it from one of the two"
        for name in sorted(set(hidden) & set(boosts)):
            yield f"boost.{field} moves {name!r}, but hide.{field} hides it: remove it from one of the two"
        for name in sorted(set(boosts) - set(shown) if shown else ()):
            yield f"boost.{field} moves {name!r}, but only.{field} does not show it: add it there, or remove the boost"
    band = policy.price_band
    if band.highest is not None and band.lowest > band.highest:
        yield f"price_band.lowest ({band.lowest:g}) is above price_band.highest ({band.highest:g}): no price fits"
    yield from _pin_contradictions(policy)


def _return_contradictions(policy: PolicyFile) -> Iterator[str]:
    """Yield a sentence for each category whose bought items return, and whose items are never shown."""
    hidden, shown = policy.hide.categories, policy.only.categories
    for field in ("bought_again", "again_after"):
        for name in getattr(policy.hide, field):
            if name in hidden:
                yield f"hide.{field} lets {name!r} return, but hide.categories hides it: remove it from one of the two"
            elif shown and name not in shown:
                yield f"hide.{field} lets {name!r} return, but only.categories does not show it: add it there"


def _ad_shelf_contradictions(policy: PolicyFile) -> Iterator[str]:
    """Yield a sentence for each shelf of ads where none is shown, and for each page without room for the ads."""
    if not policy.ads.shown:
        pages = msgspec.structs.asdict(policy.pages).items()
        paths = [(f"pages.{event} has", name) for event, names in pages for name in names]
        paths += [("shelves has a table for", name) for name in policy.shelves]
        for path, name in paths:
            if job_of(name, policy.shelves) == "sponsored":
                yield f"{path} the shelf {name!r} for ads, but ads.shown = false shows none: remove one of the two"
        return
    places = [place for placement in policy.ads.placements.values() for place in placement.places]
    has_beside = any(not placement.places for placement in policy.ads.placements.values())
    for event, names in msgspec.structs.asdict(policy.pages).items():
        jobs = {name: job_of(name, policy.shelves) for name in names}
        ads = next((name for name, job in jobs.items() if job == "sponsored"), None)
        if ads and not has_beside:
            yield (
                f"pages.{event} has the shelf {ads!r} for ads beside the list, but all slots of ads.placements are "
                "within the list: remove the shelf, or add a placement without places"
            )
        main = next((name for name, job in jobs.items() if job != "sponsored"), "")
        size = policy.shelves[main].size if main in policy.shelves else None
        if size and places and max(places) > size:
            yield (
                f"ads.placements has a slot at place {max(places)}, but {main!r}, the main shelf of pages.{event}, "
                f"has {size} items (size)"
            )


def _pin_contradictions(policy: PolicyFile) -> Iterator[str]:
    for field in ("place", "item"):
        for value, count in Counter(getattr(pin, field) for pin in policy.pin).items():
            if count > 1:
                yield f"two pins name the {field} {value!r}: keep one"
    for pin in policy.pin:
        if policy.k is not None and pin.place > policy.k:
            yield f"the pin of {pin.item!r} is at place {pin.place}, but a list has {policy.k} items (k)"
        for name, table in sorted(policy.shelves.items()):
            if table.size and table.size < pin.place and job_of(name, policy.shelves) == "for_you":
                shelf = f"the shelf {name} has {table.size} items (size)"
                yield f"the pin of {pin.item!r} is at place {pin.place}, but {shelf}"


def _without_defaults(table: msgspec.Struct) -> dict[str, Any]:
    """Return the fields of a table that differ from the defaults, so that a new field changes no hash."""
    fields: dict[str, Any] = {}
    for field in msgspec.structs.fields(type(table)):
        value = getattr(table, field.name)
        default = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
        if value != default:
            fields[field.encode_name] = _plain(value)
    return fields


def _plain(value: object) -> object:
    """Return a value of a policy with tables as dictionaries."""
    if isinstance(value, msgspec.Struct):
        return _without_defaults(value)
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    return value


_SHIPPED = ShippedFiles("clickscore.stream.policy", "policies", "policy", PolicyError)

SHIPPED_POLICIES = _SHIPPED.names
"""Names of the policies that come with the package."""


def parse_policy(text: bytes, name: str) -> PolicyFile:
    """Return the policy in a TOML text.

    Args:
        text: Content of the file.
        name: Name or path of the policy, for messages.

    Raises:
        PolicyError: The text is no TOML, has unknown fields or wrong values, or contradicts itself.
    """
    tables: dict[str, Any] = {}
    try:
        tables = parse_toml(text)
        return msgspec.convert(tables, PolicyFile)
    except msgspec.ValidationError as exc:
        message = f"the policy {name} is wrong: {describe_fault(exc, tables, PolicyFile)}"
        raise PolicyError(message) from exc
    except UnicodeDecodeError as exc:
        message = f"the policy {name} is wrong: byte {exc.start} is no UTF-8: save the file as UTF-8"
        raise PolicyError(message) from exc
    except ValueError as exc:
        message = f"the policy {name} is no TOML: {exc}"
        raise PolicyError(message) from exc


def read_policy_text(name: str) -> bytes:
    """Return the text of a shipped policy, or of a policy file.

    Args:
        name: Name of a shipped policy, or path of a TOML file.

    Raises:
        PolicyError: There is no such policy.
    """
    return _SHIPPED.read(name)


def load_policy(name: str) -> PolicyFile:
    """Return a shipped policy, or the policy of a file.

    Args:
        name: Name of a shipped policy, or path of a TOML file.

    Raises:
        PolicyError: There is no such policy, or it is wrong.
    """
    return _shipped_policy(name) if name in SHIPPED_POLICIES else parse_policy(read_policy_text(name), name)


def configured_policy(settings: Settings) -> PolicyFile:
    """Return the policy of the settings.

    Args:
        settings: Settings of a worker.

    Raises:
        PolicyError: There is no such policy, the policy is wrong, or a rule needs a setting of another value.
    """
    policy = load_policy(settings.policy.policy)
    policy.check_settings(settings.sessions)
    return policy


@functools.cache
def _shipped_policy(name: str) -> PolicyFile:
    return parse_policy(read_policy_text(name), name)


DEFAULT_POLICY = load_policy("default")
"""Policy of a shop that names none."""
