"""Deciders: which bundle decides, by the partition's epoch and by the variant of the user."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pytest

from clickscore.schemas.decisions import Recommendation, compared_variant, decode_decision
from clickscore.schemas.events import Epoch, decode_record, encode_event
from clickscore.schemas.rollouts import EpochRollout
from clickscore.stream.pipeline import Pipeline
from clickscore.stream.policy.experiments import CHALLENGER, MODEL, assign_challenger
from clickscore.stream.policy.policy_file import PolicyFile
from clickscore.stream.reference.catalogue import Catalogue
from clickscore.stream.request import Request, Scores
from clickscore.stream.settings import Settings
from tests.events import Recorded, records, view

OLD, NEW = "a" * 64, "b" * 64
USERS = [f"user-{number}" for number in range(400)]


class NamedScorer:
    """A scorer that recommends an item with its own name after any item."""

    popular = ("p",)
    trained_until = 0
    known_items = ()

    calls, call_seconds = 3, 0.5

    def __init__(self, version: str) -> None:
        self.version = version

    def item_vectors(self, items: Sequence[str]) -> np.ndarray:
        return np.zeros((len(items), 1))

    def count_known(self, items: Iterable[str]) -> int:
        return len(list(items))

    def submit(self, requests: Sequence[Request]) -> "NamedScorer":
        self.requests = requests
        return self

    def score(self, requests: Sequence[Request]) -> list[Scores | None]:
        results = dict(self.submit(requests).results())
        return [results[index] for index in range(len(requests))]

    def results(self) -> Iterator[tuple[int, Scores | None]]:
        for index in reversed(range(len(self.requests))):
            yield index, Scores([1], [0.5], {}, 0.1, ["", f"item of {self.version}"])


def make_pipeline(bundles: dict[str, NamedScorer], **changed: object) -> Pipeline:
    values = Settings.of(k=1, **changed)
    return Pipeline(values.sessions, values.policy, "events", Catalogue(), NamedScorer("own"), bundles=bundles)  # pyright: ignore[reportArgumentType]


def epoch(number: int, rollout: EpochRollout) -> bytes:
    return encode_event(Epoch(number=number, catalogue=0, campaigns=0, rollout=rollout))


def both() -> dict[str, NamedScorer]:
    return {OLD: NamedScorer("old"), NEW: NamedScorer("new")}


def log_of(*values: bytes, start: int = 0) -> list[Recorded]:
    return [Recorded(start + offset, -1, None, value) for offset, value in enumerate(values)]


def views(users: Sequence[str]) -> list[bytes]:
    return [encode_event(view(user, index)) for index, user in enumerate(users)]


def decide(pipeline: Pipeline, log: Sequence[Recorded]) -> list[Recommendation]:
    decisions = [decode_decision(message.value or b"") for message in pipeline.process(0, log).recommendations]
    return [decision for decision in decisions if isinstance(decision, Recommendation)]


def test_bundle_changes_exactly_at_the_epoch():
    pipeline = make_pipeline(both())
    one, two = epoch(1, EpochRollout(champion=OLD)), epoch(2, EpochRollout(champion=NEW))
    log = log_of(*views(["ann"]), one, *views(["bob", "eve"]), two, *views(["joe"]))
    decisions = decide(pipeline, log)
    assert [decision.bundle for decision in decisions] == ["own", "old", "old", "new"]
    assert [decision.items[0].item_id for decision in decisions] == [
        f"item of {name}" for name in ("own", "old", "old", "new")
    ]
    assert {decision.variant for decision in decisions} == {MODEL}


def test_any_split_of_the_log_gives_the_same_decisions():
    rollout = EpochRollout(champion=OLD, challenger=NEW, share=0.5)
    log = log_of(*views(USERS[:9]), epoch(1, rollout), *views(USERS[9:30]), epoch(2, EpochRollout(champion=NEW)))
    log += log_of(*views(USERS[30:40]), start=len(log))
    whole = decide(make_pipeline(both()), log)
    pipeline = make_pipeline(both())
    assert [decision for record in log for decision in decide(pipeline, [record])] == whole


def test_challenger_decides_for_its_share_of_the_users_as_a_variant():
    rollout = EpochRollout(champion=OLD, challenger=NEW, share=0.25)
    decisions = decide(make_pipeline(both()), log_of(epoch(1, rollout), *views(USERS)))
    new = [decision for decision in decisions if decision.variant == CHALLENGER]
    assert 60 < len(new) < 140
    assert {decision.bundle for decision in new} == {"new"}
    assert {decision.bundle for decision in decisions if decision.variant == MODEL} == {"old"}
    assert {compared_variant(decision) for decision in new} == {CHALLENGER}


def test_users_of_the_control_never_get_the_challenger():
    rollout = EpochRollout(champion=OLD, challenger=NEW, share=1.0)
    decisions = decide(make_pipeline(both(), control_share=0.5), log_of(epoch(1, rollout), *views(USERS)))
    assert {decision.variant for decision in decisions} == {"popular", CHALLENGER}


@pytest.mark.parametrize("share", [0.0, 0.01, 0.05, 0.25, 1.0])
def test_users_of_a_share_are_among_those_of_every_larger_share(share: float):
    users = {user for user in USERS if assign_challenger(user, NEW, share) == CHALLENGER}
    larger = {user for user in USERS if assign_challenger(user, NEW, min(1.0, share * 2)) == CHALLENGER}
    assert users <= larger
    assert share < 1 or len(users) == len(USERS)


def test_bundle_of_the_settings_stands_in_until_the_missing_bundle_is_loaded():
    bundles = both()
    missing = bundles.pop(OLD)
    pipeline = make_pipeline(bundles)
    assert decide(pipeline, log_of(epoch(1, EpochRollout(champion=OLD)), *views(["ann"])))[0].bundle == "own"
    bundles[OLD] = missing
    assert decide(pipeline, log_of(*views(["bob"]), start=2))[0].bundle == "old"


def test_missing_challenger_leaves_its_users_to_the_champion():
    bundles = both()
    del bundles[NEW]
    rollout = EpochRollout(champion=OLD, challenger=NEW, share=1.0)
    (decision,) = decide(make_pipeline(bundles), log_of(epoch(1, rollout), *views(["ann"])))
    assert (decision.bundle, decision.variant) == ("old", CHALLENGER)


def test_policy_of_the_epoch_decides_and_that_of_the_settings_stands_in():
    two = PolicyFile(version="two", owner="tests", k=2)
    rollout = EpochRollout(champion=OLD, policy=two.label)
    policies: dict[str, PolicyFile] = {}
    values = Settings.of(k=1)
    pipeline = Pipeline(
        values.sessions,
        values.policy,
        "events",
        Catalogue(),
        bundles=both(),  # pyright: ignore[reportArgumentType]
        policies=policies,
    )
    assert decide(pipeline, log_of(epoch(1, rollout), *views(["ann"])))[0].policy == pipeline.policy
    policies[two.label] = two
    (decision,) = decide(pipeline, log_of(*views(["bob"]), start=2))
    assert (decision.policy, decision.bundle, len(decision.items)) == (two.label, "old", 2)


class FailingScorer(NamedScorer):
    """A scorer that fails for a batch with any event on the item `bomb`."""

    def results(self) -> Iterator[tuple[int, Scores | None]]:
        for index, scores in super().results():
            if "bomb" in self.requests[index].items:
                raise FloatingPointError("the graph divides by 0")
            yield index, scores


def test_request_on_which_the_challenger_fails_gets_popular_items_and_the_others_their_own():
    rollout = EpochRollout(champion=OLD, challenger=NEW, share=1.0)
    bundles = {OLD: NamedScorer("old"), NEW: FailingScorer("new")}
    log = log_of(epoch(1, rollout), *views(["ann"]), encode_event(view("bob", 1, "bomb")), *views(["eve"]))
    pipeline = make_pipeline(bundles)
    output = pipeline.process(0, log)
    decided = [decode_decision(message.value or b"") for message in output.recommendations]
    assert [decision.bundle for decision in decided] == ["new", None, "new"]
    assert (output.failed, output.unscored) == (1, 1)


def test_champion_that_fails_stops_the_worker():
    pipeline = make_pipeline({OLD: FailingScorer("old")})
    with pytest.raises(FloatingPointError):
        pipeline.process(0, log_of(epoch(1, EpochRollout(champion=OLD)), encode_event(view("bob", 1, "bomb"))))


def test_sampled_requests_wait_for_the_challenger_and_change_no_decision():
    log = log_of(epoch(1, EpochRollout(champion=OLD)), *views(USERS))
    plain, sampled = make_pipeline(both()), make_pipeline(both())
    sampled.shadow_share = 0.25
    outputs = [pipeline.process(0, log) for pipeline in (plain, sampled)]
    assert outputs[0].recommendations == outputs[1].recommendations
    assert 60 < len(outputs[1].shadowed) < 140
    assert outputs[0].shadowed == []


def test_dropped_partition_begins_with_the_bundle_of_the_settings():
    pipeline = make_pipeline(both())
    decide(pipeline, log_of(epoch(1, EpochRollout(champion=OLD))))
    pipeline.drop([0])
    assert decide(pipeline, records(view("ann", 0)))[0].bundle == "own"


def test_epoch_without_a_rollout_has_no_such_field():
    plain = encode_event(Epoch(number=1, catalogue=0, campaigns=0))
    assert b"rollout" not in plain
    assert decode_record(plain) == Epoch(number=1, catalogue=0, campaigns=0)


def test_pipeline_with_loaded_bundles_alone_has_a_model():
    values = Settings()
    bundles = both()
    pipeline = Pipeline(values.sessions, values.policy, "events", Catalogue(), None, bundles=bundles)  # pyright: ignore[reportArgumentType]
    assert pipeline.has_model
    bundles.clear()
    assert not pipeline.has_model
