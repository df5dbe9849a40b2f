"""Decision pass: which policy decides on the events of a rollout, and where budgets count."""

from pathlib import Path

import msgspec
import pytest

from clickscore.schemas.decisions import decode_decision
from clickscore.schemas.events import Epoch
from clickscore.schemas.rollouts import EpochRollout
from clickscore.stream.policy.policy_file import DEFAULT_POLICY, load_policy, read_policy_text
from clickscore.stream.replay.decision_pass import make_pipeline
from clickscore.stream.replay.file_source import FileSpec
from clickscore.stream.replay.topic_source import TopicRangeSpec
from clickscore.stream.scoring.bundle import check_bundle
from clickscore.stream.scoring.bundle_store import BundleStore
from clickscore.stream.settings import Settings
from tests.bundles import small_bundle
from tests.events import records, view

FILE = FileSpec(path="events.jsonl", format="clickscore", partitions=1, fingerprint="")
TOPIC = TopicRangeSpec(topic="clickstream-events", begin="earliest", end="latest", warm_up="", ranges={})


@pytest.mark.parametrize(("follows", "policy"), [(True, "strict"), (False, "default")])
def test_policy_of_a_rollout_decides_where_rollouts_are_followed(tmp_path: Path, policy: str, *, follows: bool):
    store = BundleStore(str(tmp_path / "store"), check_bundle)
    strict = load_policy("strict").label
    store.push_policy(strict, read_policy_text("strict"))
    rollout = EpochRollout(champion=store.push(small_bundle(tmp_path / "b")).content_hash, policy=strict)
    settings = Settings.of(bundle_store=str(tmp_path / "store"))
    pipeline = make_pipeline(settings, TOPIC, (DEFAULT_POLICY, None), follows_rollouts=follows)
    epoch = msgspec.json.encode(Epoch(number=1, catalogue=0, campaigns=0, rollout=rollout))
    (message,) = pipeline.process(0, records(epoch, view("ann", 0, "item-1"))).recommendations
    decision = decode_decision(message.value or b"")
    assert (decision.policy, decision.bundle is not None) == (load_policy(policy).label, follows)


def test_budgets_count_in_topics_alone():
    pipelines = [
        make_pipeline(Settings(), spec, (DEFAULT_POLICY, None), follows_rollouts=True) for spec in (FILE, TOPIC)
    ]
    assert [pipeline.applies_budgets for pipeline in pipelines] == [False, True]
