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


def test_four_policies_are_shipped():
    assert SHIPPED_POLICIES == ("default", "discovery", "no-ads", "strict")


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


def test_field_that_nothing_reads_is_refused():
    assert fault_of(b"[limit]\nreminder = 1\n") == (
        "the policy a.toml is wrong: Object contains unknown field `reminder` (limit)"
    )
    assert fault_of(b"colour = 1\n").endswith("unknown field `colour`")


def test_wrong_value_is_refused_with_its_field():
    assert fault_of(b"limit.reminders = -1\n").endswith("Expected `int` >= 0 (limit.reminders)")


def test_contradiction_is_refused_in_a_sentence():
    assert "ads.shown = false shows no ad: remove one of the two" in fault_of(b"ads = {shown = false, reserve = 1.0}\n")


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
            b'k = 2\npin = [{place = 3, item = "a"}]\n',
            "the pin of 'a' is at place 3, but a list has 2 items (k)",
        ),
    ],
)
def test_fields_that_contradict_each_other_are_refused(text: bytes, sentence: str):
    assert fault_of(text) == f"the policy a.toml is wrong: {sentence}"


@pytest.mark.parametrize("factor", [0.0, 0.05, 11.0])
def test_factor_of_a_boost_is_bounded(factor: float):
    assert fault_of(f"boost.promoted = {factor}\n".encode()).endswith("(boost.promoted)")


def test_pin_within_the_list_is_good():
    assert parse_policy(HEAD + b'k = 2\npin = [{place = 2, item = "a"}]\n', "a").pin == (Pin(place=2, item="a"),)


@pytest.mark.parametrize("text", [b"[", b"\xff"])
def test_text_that_is_no_toml_is_refused(text: bytes):
    assert "a.toml is wrong" in fault_of(text)


def test_owner_and_version_are_needed():
    with pytest.raises(PolicyError, match="missing required field `owner`"):
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
    assert sentences[-1].endswith("if its expected value reaches 2.5.")


def test_every_rule_has_a_sentence():
    policy = parse_policy(
        HEAD
        + b"""
hide = {bought_again = ["milk"], flags = ["adult"], categories = ["tin"], brands = ["elm"], unavailable = false}
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
        "Bought items of the categories 'milk' return with the next session.",
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


def test_difference_names_the_field_and_both_sentences():
    assert diff_policies(DEFAULT_POLICY, load_policy("no-ads")) == [
        "ads: The most valuable matching ad is shown, if its expected value reaches the setting reserve. -> "
        "No ad is shown."
    ]
    assert diff_policies(DEFAULT_POLICY, msgspec.structs.replace(DEFAULT_POLICY, reasons=1)) == [
        "reasons: Nothing. -> An item names at most 1 event as its reasons."
    ]
    assert diff_policies(DEFAULT_POLICY, DEFAULT_POLICY) == []
