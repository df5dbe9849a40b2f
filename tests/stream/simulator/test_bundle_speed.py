"""Bundle speed: the measurement decides on events of the bundle's items, and says what it measured."""

import json
from itertools import islice, pairwise
from pathlib import Path

from click.testing import CliRunner

from clickscore.schemas.events import View, decode_record
from clickscore.stream.__main__ import cli
from clickscore.stream.policy.policy_file import DEFAULT_POLICY
from clickscore.stream.settings import Settings
from clickscore.stream.simulator.bundle_speed import (
    BATCHES,
    SESSION_EVENTS,
    USERS,
    generate_records,
    measure_bundle,
)

DEMO = Path(__file__).parents[3] / "stream" / "bundles" / "demo"


def test_events_are_sessions_of_views_of_the_bundles_items():
    items = ("mug", "kettle")
    records = list(islice(generate_records(items, 1), 2 * USERS * SESSION_EVENTS))
    events = [decode_record(record.value) for record in records]
    assert all(isinstance(event, View) and event.item_id in items for event in events)
    assert [record.offset for record in records] == list(range(len(records)))
    times = [event.ts for event in events if getattr(event, "user_id", "") == "user-0"]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert [gap > Settings().sessions.gap_ms for gap in gaps] == [number == 9 for number in range(19)]


def test_measurement_has_every_batch_size():
    speed = measure_bundle(DEMO, Settings(), 0.01, DEFAULT_POLICY)
    assert [batch.batch for batch in speed.batches] == list(BATCHES)
    for batch in speed.batches:
        assert 0 < batch.p50_ms <= batch.p99_ms
        assert batch.events_per_s > 0
    assert speed.items > 0
    assert speed.memory_mb > 50


def test_command_prints_a_table_or_json():
    words = CliRunner().invoke(cli, ["bundle", "bench", "demo", "--seconds", "0.01"])
    assert words.exit_code == 0, words.output
    assert words.output.splitlines()[-1].startswith("at most ")
    values = CliRunner().invoke(cli, ["bundle", "bench", "demo", "--seconds", "0.01", "--json"])
    assert [batch["batch"] for batch in json.loads(values.stdout)["batches"]] == list(BATCHES)
