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


def test_difference_names_the_field_and_both_sentences():
    assert diff_policies(DEFAULT_POLICY, load_policy("no-ads")) == [
        "ads: The most valuable matching ad is shown, if its expected value reaches the setting reserve. -> "
        "No ad is shown."
    ]
    assert diff_policies(DEFAULT_POLICY, msgspec.structs.replace(DEFAULT_POLICY, reasons=1)) == [
        "reasons: Nothing. -> An item names at most 1 events as its reasons."
    ]
    assert diff_policies(DEFAULT_POLICY, DEFAULT_POLICY) == []
