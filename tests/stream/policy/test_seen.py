"""Items seen too often: counted from impressions in the log, hidden by a rule, and gone with the session."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clickscore.schemas.decisions import Recommendation, decode_decision
from clickscore.schemas.events import AnyEvent, PrivacyRecord, decode_record
from clickscore.schemas.handover import Handover
from clickscore.schemas.seen_items import short_hash, split_seen
from clickscore.schemas.snapshots import UserState, decode_user, encode
from clickscore.stream.errors import PolicyError
from clickscore.stream.pipeline import Pipeline
from clickscore.stream.pipeline_records import Output
from clickscore.stream.policy.policy_file import Hide, PolicyFile, configured_policy, parse_policy
from clickscore.stream.policy.policy_parts import policies_without_a_part
from clickscore.stream.policy.policy_words import policy_sentences
from clickscore.stream.policy.recommend import Policy
from clickscore.stream.policy.shelf_plan import make_shelf_plan
from clickscore.stream.reference.catalogue import Catalogue
from clickscore.stream.scoring.bundle_store import BundleStore
from clickscore.stream.settings import PolicySettings, SessionSettings, Settings
from clickscore.stream.state.changelog import restore
from clickscore.stream.stored_policies import load_stored_policy
from tests.events import erase, grant, identify, impression, purchase, records, search, view, withdraw
from tests.scored_requests import make_catalogue, make_request, make_scores, plain

SEEN_TWICE = plain(hide=Hide(on_screen=False, seen=2))
TEXT = b'version = "often-1"\nowner = "me"\nhide.seen = 3\n'
Logged = AnyEvent | PrivacyRecord | Handover


def pipeline(policy_file: PolicyFile = SEEN_TWICE, **changed: object) -> Pipeline:
    values = Settings.of(**({"max_seen": 3} | changed))
    return Pipeline(values.sessions, values.policy, "events", Catalogue(), policy_file=policy_file)


def run(made: Pipeline, *events: Logged, partition: int = 0) -> Output:
    first = made.state(partition).offset + 1
    return made.process(partition, [record._replace(timestamp=-1) for record in records(*events, first=first)])


def decisions(output: Output) -> list[Recommendation]:
    made = [decode_decision(message.value or b"") for message in output.recommendations]
    return [decision for decision in made if isinstance(decision, Recommendation)]


def counts(made: Pipeline, user: str = "ann", partition: int = 0) -> dict[str, int]:
    """Return the counts of a user for the items a, b, c and d."""
    names = {short_hash(name): name for name in "abcd"}
    items = split_seen(made.state(partition).user(user).seen or b"")
    return {names[item]: count for item, (_, count) in items.items()}


# The rule


def test_item_that_was_shown_twice_is_hidden_for_this_user_alone():
    made = pipeline()
    output = run(made, view("bob", 0, "a"), view("ann", 1, "b"), impression("ann", 2, "a"), impression("ann", 3, "a"))
    assert [[item.item_id for item in decision.items] for decision in decisions(output)] == [
        ["a"],
        ["a", "b"],
        ["a", "b"],
        ["b"],
    ]
    assert decisions(output)[-1].filtered == {"seen": 1}
    assert output.removed == {"seen": 1}
    (decision,) = decisions(run(made, view("bob", 4, "b")))
    assert [item.item_id for item in decision.items] == ["a", "b"]


def test_candidate_of_the_model_is_hidden_too():
    made = pipeline()
    run(made, view("ann", 0, "x"), impression("ann", 1, "a"), impression("ann", 2, "a"))
    request = msgspec.structs.replace(make_request("x"), seen=made.state(0).user("ann").seen or b"")
    policy, scores = Policy(SEEN_TWICE, "bundle", ()), make_scores("a", "b")
    decision = policy.recommend(request, scores, make_catalogue())
    assert [item.item_id for item in decision.items] == ["b"]
    assert [(effect.item_id, effect.rule) for effect in policy.trace(request, scores, make_catalogue())] == [
        ("a", "seen")
    ]


@pytest.mark.parametrize(("impressions", "times"), [(1, "once"), (3, "3 times")])
def test_rule_is_said_in_words(impressions: int, times: str):
    policy = plain(hide=Hide(seen=impressions))
    sentences = {rule.name: rule.sentence for rule in Policy(policy, None, ()).rules}
    assert sentences["seen"] == f"it was shown {times} or more in this session without a click"
    assert policy_sentences(policy)["hide.seen"] == (
        f"Items that were shown {times} in a session without a click are not shown again in it."
    )
    assert dict(policies_without_a_part(policy))["hide.seen"].hide.seen is None


def test_policy_without_the_rule_hides_nothing():
    made = pipeline(plain())
    run(made, view("ann", 0, "a"), impression("ann", 1, "a"), impression("ann", 2, "a"))
    assert [item.item_id for item in decisions(run(made, view("ann", 3, "b")))[0].items] == ["a", "b"]


def test_shelves_of_the_users_own_items_keep_what_was_seen():
    plans = {name: make_shelf_plan(SEEN_TWICE, name, PolicySettings()) for name in ("recently_viewed", "similar")}
    assert {name: plan.rules.hide.seen for name, plan in plans.items() if plan} == {
        "recently_viewed": None,
        "similar": 2,
    }


def test_configured_policy_is_that_of_the_settings_once_it_is_checked(tmp_path: Path):
    path = tmp_path / "often.toml"
    path.write_bytes(TEXT)
    assert configured_policy(Settings.of(policy=str(path), max_seen=3)).version == "often-1"
    with pytest.raises(PolicyError, match="max_seen is 0"):
        configured_policy(Settings.of(policy=str(path), max_seen=0))


def test_rule_without_the_setting_is_refused(tmp_path: Path):
    policy = parse_policy(TEXT, "often.toml")
    policy.check_settings(SessionSettings(max_seen=1))
    plain().check_settings(SessionSettings())
    BundleStore(str(tmp_path)).push_policy(policy.label, TEXT)
    assert load_stored_policy(str(tmp_path), policy.label, settings=SessionSettings(max_seen=1)) == policy
    with pytest.raises(PolicyError) as refused:
        load_stored_policy(str(tmp_path), policy.label, settings=SessionSettings())
    assert str(refused.value) == (
        f"the policy {policy.label} has hide.seen = 3, but the setting max_seen is 0, so that no impression is "
        "counted: set max_seen to 64 (CLICKSCORE_MAX_SEEN=64), or remove hide.seen"
    )


# The counts


def test_nothing_is_counted_by_default():
    made = pipeline(plain(), max_seen=0)
    run(made, view("ann", 0, "a"), impression("ann", 1, "b"))
    assert made.state(0).user("ann").seen is None
    assert made.state(0).contents()[b"ann"][-1:] == b"\xc0"  # a user without counts has a byte more than before


def test_event_with_an_item_ends_its_count_and_another_does_not():
    made = pipeline()
    run(made, view("ann", 0, "a"), impression("ann", 1, "b"), impression("ann", 1, "c"), search("ann", 2))
    assert counts(made) == {"b": 1, "c": 1}
    run(made, view("ann", 3, "b"), impression("ann", 4, "b"), purchase("ann", 5, "c"))
    assert counts(made) == {"b": 1}


def test_repeat_counts_once_and_the_oldest_item_goes_first():
    made = pipeline()
    run(made, view("ann", 0, "x"), *(impression("ann", 1, item) for item in "aabcd"))
    assert counts(made) == {"b": 1, "c": 1, "d": 1}


def test_counts_end_with_the_session():
    made = pipeline()
    run(made, view("ann", 0, "x"), impression("ann", 1, "a"), view("ann", 60, "x"))
    assert counts(made) == {}


def test_impression_without_a_session_or_behind_the_watermark_does_not_count():
    made = pipeline()
    run(made, impression("ann", 100, "a"), view("ann", 101, "x"), impression("ann", 1, "b"))
    assert counts(made) == {}


def test_no_counts_without_consent_to_personalisation():
    made = pipeline()
    run(made, view("ann", 0, "x"), impression("ann", 1, "a"), withdraw("ann", 2, "ads"), impression("ann", 3, "a"))
    assert counts(made) == {"a": 2}
    run(made, withdraw("ann", 4, "personalisation"), view("ann", 5, "x"), impression("ann", 6, "a"))
    assert counts(made) == {}


def test_erased_user_has_no_counts():
    made = pipeline()
    run(made, view("ann", 0, "x"), impression("ann", 1, "a"), erase("ann", 2), view("ann", 3, "x"))
    assert counts(made) == {}


def test_snapshot_from_before_counts_is_read():
    fields = msgspec.msgpack.decode(encode(UserState(offset=1, session_id="s")))
    assert decode_user(msgspec.msgpack.encode(fields[:-1])) == UserState(offset=1, session_id="s")


# Hand-overs


def hand_over(made: Pipeline, *events: Logged) -> Handover:
    (message,) = run(made, *events, partition=1).handovers
    record = decode_record(message.value or b"")
    assert isinstance(record, Handover)
    return record


def test_counts_go_over_with_the_session():
    made = pipeline()
    anonymous = view("web", 0, "x"), impression("web", 1, "a"), impression("web", 2, "b")
    record = hand_over(made, *anonymous, identify("web", 3, "ann"))
    assert counts(made, "web", 1) == {}
    run(made, view("ann", 1, "y"), impression("ann", 2, "a"), record)
    assert counts(made) == {"b": 1, "a": 2}
    bob = pipeline()
    run(bob, msgspec.structs.replace(record, user_id="bob"))
    assert counts(bob, "bob") == {"a": 1, "b": 1}
    switched_off = pipeline(plain(), max_seen=0)
    run(switched_off, record)
    assert counts(switched_off) == {}


def test_counts_of_a_session_that_is_over_stay_out():
    made = pipeline()
    record = hand_over(made, view("web", 0, "x"), impression("web", 1, "a"), identify("web", 3, "ann"))
    run(made, view("ann", 90, "y"), record)
    assert counts(made) == {}


def test_counts_are_left_out_of_a_record_that_would_be_too_large():
    made = pipeline(max_event_bytes=600)
    shown = [impression("web", 1 + minute, item) for minute, item in enumerate("abc")]
    record = hand_over(made, view("web", 0, "x" * 100), *shown, identify("web", 9, "ann" * 60))
    assert record.session is not None
    assert (record.session.seen, len(record.session.events)) == (msgspec.UNSET, 1)


def test_cut_off_counts_are_refused():
    made = pipeline()
    record = hand_over(made, view("web", 0, "x"), impression("web", 1, "a"), identify("web", 3, "ann"))
    fields = msgspec.to_builtins(record) | {"type": "handover"}
    fields["session"]["seen"] = "AAAA"
    value = msgspec.json.encode(fields)
    (letter,) = made.process(0, [record._replace(timestamp=-1) for record in records(value)]).dead_letters
    assert "the seen items are cut off" in letter.error


# Restarts


def build(kind: str, user: str, minute: int, item: str) -> Logged:
    makers = {
        "view": lambda: view(user, minute, item),
        "impression": lambda: impression(user, minute, item),
        "withdraw": lambda: withdraw(user, minute, "personalisation"),
        "grant": lambda: grant(user, minute, "personalisation"),
        "erase": lambda: erase(user, minute),
    }
    return makers[kind]()


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["view", "impression", "impression", "impression", "withdraw", "grant", "erase"]),
        st.sampled_from(["ann", "bob"]),
        st.sampled_from([1, 1, 40]),
        st.sampled_from("abcd"),
    ),
    max_size=20,
)


@given(STEPS, st.data())
@settings(max_examples=60)
def test_decisions_after_a_restart_are_the_decisions(steps: Sequence[tuple[str, str, int, str]], data: st.DataObject):
    minutes = [sum(step[2] for step in steps[: index + 1]) for index in range(len(steps))]
    log = [build(kind, user, minute, item) for (kind, user, _, item), minute in zip(steps, minutes, strict=True)]
    cut = data.draw(st.integers(0, len(log)))
    whole, split, heir = pipeline(), pipeline(), pipeline()
    expected = run(whole, *log).recommendations
    first = run(split, *log[:cut])
    heir.load({0: restore(first.changes, "events-0", Settings.of(max_seen=3).sessions)})
    rest = run(heir, *log[cut:])
    assert [*first.recommendations, *rest.recommendations] == expected
    assert heir.state(0).contents() == whole.state(0).contents()
