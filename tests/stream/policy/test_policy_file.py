"""Policy files: what is read, what is refused, and what the hash says."""

from pathlib import Path

import msgspec
import pytest

from clickscore.stream.errors import PolicyError
from clickscore.stream.policy.policy_file import (
    DEFAULT_POLICY,
    SHIPPED_POLICIES,
    Ads,
    Hide,
    Limit,
    Pin,
    PolicyFile,
    load_policy,
    parse_policy,
)
from clickscore.stream.policy.policy_words import diff_policies, explain_policy
from clickscore.stream.settings import PolicySettings

HEAD = b'version = "a-1"\nowner = "shop"\n'


def fault_of(text: bytes) -> str:
    with pytest.raises(PolicyError) as refused:
        parse_policy(HEAD + text, "a.toml")
    return str(refused.value)


def test_five_policies_are_shipped():
    assert SHIPPED_POLICIES == ("default", "discovery", "no-ads", "shelves", "strict")


def test_default_file_states_every_default():
    plain = PolicyFile(version=DEFAULT_POLICY.version, owner=DEFAULT_POLICY.owner)
    assert plain == DEFAULT_POLICY
    assert plain.label == DEFAULT_POLICY.label


def test_policy_is_named_by_version_and_content():
    label = parse_policy(HEAD, "a").label
    version, _, digits = label.partition("@")
    assert (version, len(digits)) == ("a-1", 8)


def test_hash_says_what_is_in_the_file_not_how_it_is_written():
    spread = parse_policy(HEAD + b"[limit]\n# a comment\nreminders   =   1\n[hide]\nbought = true\n", "a")
    short = parse_policy(HEAD + b"limit.reminders = 1\n", "b")
    assert spread.label == short.label


@pytest.mark.parametrize(
    "change", [{"k": 3}, {"reasons": 2}, {"hide": Hide(bought=False)}, {"limit": Limit(reminders=0)}, {"owner": "b"}]
)
def test_every_field_changes_the_hash(change: dict[str, object]):
    assert msgspec.structs.replace(DEFAULT_POLICY, **change).hash != DEFAULT_POLICY.hash


class LaterPin(Pin, frozen=True, kw_only=True):
    """A pin with a field that a later release has added."""

    note: str = ""


def test_new_field_of_a_pin_changes_no_hash():
    pinned, later = (
        PolicyFile(version="a-1", owner="shop", pin=(pin,))
        for pin in (Pin(place=2, item="x"), LaterPin(place=2, item="x"))
    )
    assert pinned.label == later.label == "a-1@223061cd"


def test_field_that_nothing_reads_is_refused():
    assert fault_of(b"[limit]\nreminder = 1\n") == (
        "the policy a.toml is wrong: unknown field limit.reminder (did you mean reminders?)"
    )
    assert "wrong: unknown field colour (the fields are version, owner, k, " in fault_of(b"colour = 1\n")


def test_wrong_value_is_refused_with_its_field():
    assert fault_of(b"limit.reminders = -1\n").endswith("limit.reminders must be at least 0, not -1")
    assert fault_of(b"boost.items = {oak-mug = 20.0}\n").endswith("boost.items.oak-mug must be at most 10, not 20.0")


def test_contradiction_is_refused_in_a_sentence():
    assert fault_of(b"ads = {shown = false, reserve = 1.0}\n").endswith(
        "ads.reserve is about shown ads, but ads.shown = false shows none: remove one of the two"
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            b'hide.categories = ["tea"]\nonly.categories = ["tea"]\n',
            "hide.categories hides 'tea', but only.categories shows it: remove it from one of the two",
        ),
        (
            b'hide.brands = ["oak"]\nboost.brands = {oak = 2.0}\n',
            "boost.brands moves 'oak', but hide.brands hides it: remove it from one of the two",
        ),
        (
            b'only.brands = ["elm"]\nboost.brands = {oak = 2.0}\n',
            "boost.brands moves 'oak', but only.brands does not show it: add it there, or remove the boost",
        ),
        (
            b'hide = {bought = false, bought_again = ["tea"]}\n',
            "hide.bought_again lets bought items return, but hide.bought = false hides none: remove one of the two",
        ),
        (
            b"price_band = {lowest = 2.0, highest = 1.0}\n",
            "price_band.lowest (2) is above price_band.highest (1): no price fits",
        ),
        (b'pin = [{place = 1, item = "a"}, {place = 1, item = "b"}]\n', "two pins name the place 1: keep one"),
        (b'pin = [{place = 1, item = "a"}, {place = 2, item = "a"}]\n', "two pins name the item 'a': keep one"),
        (
            b'pages.view = ["gifts"]\n',
            "pages.view names the shelf 'gifts', which has no table in shelves, and is none of for_you, similar, "
            "complement, recently_viewed, buy_again, popular_in_category, new_in, sponsored",
        ),
        (
            b"[shelves.gifts]\nsize = 4\n",
            "shelves.gifts says no job, and its name is none: set job to one of for_you, similar, complement, "
            "recently_viewed, buy_again, popular_in_category, new_in, sponsored",
        ),
        (
            b"[shelves.sponsored]\nsize = 4\n",
            "shelves.sponsored.size is set, but ads.placements says how many ads a page has: remove size",
        ),
        (
            b'hide = {bought_again = ["tea"], again_after = {tea = 9}}\n',
            "hide.bought_again and hide.again_after both say when items of 'tea' return: remove one of the two",
        ),
        (
            b'hide = {categories = ["tea"], bought_again = ["tea"]}\n',
            "hide.bought_again lets 'tea' return, but hide.categories hides it: remove it from one of the two",
        ),
        (
            b'hide.again_after = {tea = 9, mugs = 2}\nonly.categories = ["mugs"]\n',
            "hide.again_after lets 'tea' return, but only.categories does not show it: add it there",
        ),
        (
            b'pages.view = ["for_you", "sponsored"]\n[ads.placements.list]\nplaces = [1]\n',
            "pages.view has the shelf 'sponsored' for ads beside the list, but all slots of ads.placements are within "
            "the list: remove the shelf, or add a placement without places",
        ),
        (
            b"pages.view = ['sponsored', 'top']\npages.cart = ['for_you']\n[shelves.top]\njob = 'similar'\nsize = 4\n"
            b"[ads.placements]\nbeside = {}\nlist = {places = [5]}\n",
            "ads.placements has a slot at place 5, but 'top', the main shelf of pages.view, has 4 items (size)",
        ),
        (
            b'ads.shown = false\npages.view = ["for_you", "paid"]\n[shelves.paid]\njob = "sponsored"\n',
            "pages.view has the shelf 'paid' for ads, but ads.shown = false shows none: remove one of the two; shelves "
            "has a table for the shelf 'paid' for ads, but ads.shown = false shows none: remove one of the two",
        ),
        (
            b"ads.per_page = 2\n",
            "ads.per_page is 2, but ads.placements has 1 slot on a page: add slots, or remove per_page",
        ),
        (
            b"[ads]\nper_page = 3\nper_session = 2\nplacements = {beside = {exposure = [1.0, 0.5, 0.2]}}\n",
            "ads.per_page (3) is above ads.per_session (2), so that no page has as many ads: lower per_page, or raise "
            "per_session",
        ),
        (
            b"[ads]\nquality_weight = 0\nplacements = {list = {places = [2], relevance = 0.5}}\n",
            "ads.placements.list.relevance compares the quality of items, but ads.quality_weight = 0 makes every "
            "quality 1: remove one of the two",
        ),
        (b"price_band.lowest = inf\n", "price_band.lowest must be at most 1000000, not inf"),
        (b"ads.reserve = inf\n", "ads.reserve must be at most 9000000000, not inf"),
        (b'pages.view = ["similar", "similar"]\n', "pages.view names the shelf 'similar' twice: keep one"),
        (
            b'pages.view = ["for_you", "sponsored", "paid"]\n[shelves.paid]\njob = "sponsored"\n',
            "pages.view has the same ads on the shelves 'sponsored' and 'paid': keep one",
        ),
        (
            b"[shelves.for_you]\nsize = 2\n[shelves.similar]\nsize = 2\n[[pin]]\nplace = 3\nitem = 'a'\n",
            "the pin of 'a' is at place 3, but the shelf for_you has 2 items (size)",
        ),
        (b'pages.view = ["sponsored"]\n', "pages.view has ads alone: add a shelf of another job"),
        (
            b'k = 2\npin = [{place = 3, item = "a"}]\n',
            "the pin of 'a' is at place 3, but a list has 2 items (k)",
        ),
        (
            b"[ads.placements.top]\nexposure = [0.5, 1.0]\n",
            "ads.placements.top.exposure rises: put the slots in the order in which they are seen",
        ),
        (
            b"[ads.placements.top]\nexposure = [1.0, 1.0]\nplaces = [3, 2]\n",
            "ads.placements.top.places does not rise: put the places in their order, each once",
        ),
        (
            b"[ads.placements.top]\nplaces = [1, 2]\n",
            "ads.placements.top has 2 places and 1 exposures: each slot needs one of both",
        ),
        (
            b"[ads.placements.top]\nrelevance = 0.5\n",
            "ads.placements.top sets floating or relevance, which speak of places in the list, but has no places",
        ),
        (
            b"k = 2\n[ads.placements.top]\nplaces = [3]\n",
            "ads.placements.top has a slot at place 3, but a list has 2 items (k)",
        ),
        (
            b"[ads.placements]\na = {places = [1]}\nb = {places = [1]}\n",
            "two slots of ads.placements have the place 1: keep one",
        ),
    ],
)
def test_fields_that_contradict_each_other_are_refused(text: bytes, sentence: str):
    assert fault_of(text) == f"the policy a.toml is wrong: {sentence}"


@pytest.mark.parametrize("factor", [0.0, 0.05, 11.0])
def test_factor_of_a_boost_is_bounded(factor: float):
    bound = "at most 10" if factor > 1 else "at least 0.1"
    assert fault_of(f"boost.promoted = {factor}\n".encode()).endswith(f"boost.promoted must be {bound}, not {factor}")


def test_pin_within_the_list_is_good():
    assert parse_policy(HEAD + b'k = 2\npin = [{place = 2, item = "a"}]\n', "a").pin == (Pin(place=2, item="a"),)


def test_text_that_is_no_toml_is_refused():
    assert fault_of(b"[").startswith("the policy a.toml is no TOML: ")
    assert fault_of(b"\xff").endswith("a.toml is wrong: byte 31 is no UTF-8: save the file as UTF-8")


def test_version_is_one_line():
    with pytest.raises(PolicyError, match="version must have at most 64 small letters"):
        parse_policy(b'version = "a\\n"\nowner = "shop"', "a")


def test_owner_and_version_are_needed():
    with pytest.raises(PolicyError, match="owner is missing"):
        parse_policy(b'version = "a"', "a")


def test_policy_of_a_path(tmp_path: Path):
    path = tmp_path / "a.toml"
    path.write_bytes(HEAD)
    assert load_policy(str(path)).version == "a-1"
    with pytest.raises(PolicyError, match="cannot be read: No such file"):
        load_policy(str(tmp_path / "b.toml"))
    with pytest.raises(PolicyError, match="there is no policy nope: use one of default, "):
        load_policy("nope")


def test_settings_count_where_the_file_says_nothing():
    settings = PolicySettings(k=4, reasons=2, reserve=0.5)
    assert (
        DEFAULT_POLICY.size(settings),
        DEFAULT_POLICY.max_reasons(settings),
        DEFAULT_POLICY.reserve(settings),
    ) == (4, 2, 0.5)
    own = msgspec.structs.replace(DEFAULT_POLICY, k=6, reasons=0, ads=Ads(reserve=0.0))
    assert (own.size(settings), own.max_reasons(settings), own.reserve(settings)) == (6, 0, 0.0)


# Words


@pytest.mark.parametrize("name", SHIPPED_POLICIES)
def test_every_policy_is_explained_in_sentences(name: str):
    for sentence in explain_policy(load_policy(name)):
        assert sentence[0].isupper()
        assert sentence.endswith(".")


def test_explanation_follows_the_fields():
    policy = PolicyFile(
        version="a", owner="b", k=5, reasons=2, hide=Hide(bought=False), limit=Limit(reminders=1), ads=Ads(reserve=2.5)
    )
    sentences = explain_policy(policy)
    assert "A list has 5 items." in sentences
    assert "An item names at most 2 events as its reasons." in sentences
    assert "Items that the user has bought are shown like any other." in sentences
    assert "At most 1 place repeats items of this session." in sentences
    assert "The most valuable matching ads are shown, if the expected value of an impression reaches 2.5." in sentences


def test_every_rule_has_a_sentence():
    policy = parse_policy(
        HEAD
        + b"""
hide = {bought_again = ["tea"], flags = ["adult"], categories = ["tin"], brands = ["elm"], unavailable = false}
only = {categories = ["tea", "cups"], brands = ["oak"], relevance = 0.1}
price_band = {lowest = 0.5, highest = 2.0}
limit = {category = 1, brand = 2, seller = 3}
boost = {items = {a = 2.0}, categories = {tea = 1.5}, brands = {oak = 0.5}, promoted = 3.0, margin = 4.0, fresh = 2.0}
pin = [{place = 1, item = "a"}]
""",
        "a",
    )
    sentences = explain_policy(policy)
    for sentence in (
        "Items not sold in the user's region or to the user's group are shown like any other.",
        "Bought items of the categories 'tea' return with the next session.",
        "Items with the flags 'adult' are not shown.",
        "Only items with the categories 'tea', 'cups' are shown.",
        "Candidates with less than 0.1 of the best candidate's relevance are not shown, "
        "and popular items do not take their places.",
        "Prices are at least 0.5 times and at most 2 times the price of the item on screen.",
        "At most 1 item of a list share a category.",
        "The relevance of the brands 'oak' (by 0.5) is multiplied.",
        "The relevance of items in a promotion is multiplied by 3.",
        "The relevance of an item is multiplied by 4 to the power of its margin.",
        "The relevance of new items is multiplied by 2, fading over 14 days.",
        "'a' has place 1.",
    ):
        assert sentence in sentences
    assert "Prices are at least 0.5 times the price of the item on screen." in explain_policy(
        parse_policy(HEAD + b"price_band.lowest = 0.5", "a")
    )


def test_every_field_of_the_ads_has_a_sentence():
    policy = parse_policy(
        HEAD
        + b"""
[ads]
share = 0.02
quality_weight = 0.25
per_page = 2
per_session = 9
[ads.placements.list]
exposure = [1.0, 0.5]
places = [2, 5]
floating = true
relevance = 0.5
pricing = "first_price"
reserve = 0.01
""",
        "a",
    )
    assert explain_policy(policy)[-5:] == [
        "An ad is expected to get 2 % of the next views and of a session's purchases.",
        "The expected value of an ad is multiplied by its quality, which is relevance to the power of 0.25.",
        "A page has at most 2 ads.",
        "A session has at most 9 ads.",
        "The placement list has 2 slots with exposure 1, 0.5 at the places 2, 5 of the list; an ad that may not be at "
        "its place goes to the next place where it may; an ad needs 0.5 of the quality of the item that it displaces; "
        "the expected value of an impression reaches 0.01; an ad pays its bid.",
    ]
    assert "The expected value of an ad is multiplied by its quality, which is 1 for every item." in explain_policy(
        parse_policy(HEAD + b"ads.quality_weight = 0", "a")
    )


def test_hash_says_what_a_placement_means():
    spread = parse_policy(HEAD + b"[ads.placements.top]\nfloating = false\n", "a")
    short = parse_policy(HEAD + b"ads.placements.top = {}\n", "b")
    assert spread.label == short.label != DEFAULT_POLICY.label


def test_difference_names_the_field_and_both_sentences():
    assert diff_policies(DEFAULT_POLICY, load_policy("no-ads")) == [
        "ads: The most valuable matching ads are shown, if the expected value of an impression reaches the setting "
        "reserve. -> No ad is shown.",
        "ads.share: An ad is expected to get 1 % of the next views and of a session's purchases. -> Nothing.",
        "ads.quality_weight: The expected value of an ad is multiplied by its quality, which is relevance to the power "
        "of 0.5. -> Nothing.",
        "ads.placements.beside: The placement beside has 1 slot with exposure 1 beside the list; an ad pays the lowest "
        "bid that keeps its slot. -> Nothing.",
    ]
    assert diff_policies(DEFAULT_POLICY, msgspec.structs.replace(DEFAULT_POLICY, reasons=1)) == [
        "reasons: Nothing. -> An item names at most 1 event as its reasons."
    ]
    assert diff_policies(DEFAULT_POLICY, DEFAULT_POLICY) == []


def test_every_digit_of_a_number_counts_in_a_difference():
    old, new = (parse_policy(HEAD + b"ads.reserve = " + reserve, "a") for reserve in (b"1000000.25", b"1000000.5"))
    (change,) = diff_policies(old, new)
    assert change.endswith(
        "reaches 1000000.25. -> The most valuable matching ads are shown, if the expected value of "
        "an impression reaches 1000000.5."
    )


def test_days_until_an_item_is_not_new_are_in_a_difference():
    pages = b'pages.view = ["for_you", "new_in"]\n'
    old, new = parse_policy(HEAD + pages, "a"), parse_policy(HEAD + pages + b"boost.fresh_days = 30", "b")
    expected = "An item is new for 14 days on shelves of the job new_in. -> An item is new for 30 days on shelves of "
    assert diff_policies(old, new) == [f"boost.fresh_days: {expected}the job new_in."]
    assert "An item is new for 30 days on shelves of the job new_in." in explain_policy(
        parse_policy(HEAD + b"boost.fresh_days = 30", "c")  # an event may name the shelf
    )


def test_shelves_are_explained_in_words():
    text = b'pages.view = ["for_you", "teas", "sponsored"]\nshelves.teas = {job = "popular_in_category", size = 4}\n'
    sentences = explain_policy(parse_policy(HEAD + text, "a"))
    assert sentences[-4:] == [
        "The page of the event view has the shelves 'for_you', 'teas', 'sponsored', no item twice.",
        "The shelf teas has at most 4 items: popular items of the category of the item on screen; fewer where there "
        "are no more.",
        "The shelf for_you has the items of a plain list; popular items follow those of the model.",
        "The shelf sponsored has the ads beside the list; none where no ad is shown.",
    ]


def test_interval_of_a_category_is_explained_in_words():
    sentences = explain_policy(parse_policy(HEAD + b"hide.again_after = {coffee = 21}\n", "a"))
    assert "Bought items of 'coffee' return after 21 days." in sentences


def test_diversity_is_explained_in_words():
    sentences = explain_policy(parse_policy(b"diversity = 0.25\n" + HEAD, "a"))
    assert (
        "Items like those on earlier places stand back, by the share 0.25 of likeness against 0.75 of relevance."
        in sentences
    )
