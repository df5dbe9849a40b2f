"""Golden: a small log and the decisions on it, byte for byte. A change of behaviour is a reviewed difference.

After a change that is meant: `clickscore replay tests/golden/events.jsonl --out tests/golden/decisions.jsonl`.
"""

from pathlib import Path

from stream.adapters import EventFile
from stream.catalogue import Catalogue
from stream.pipeline import Pipeline
from stream.replay import Replay
from stream.settings import Settings

GOLDEN = Path(__file__).parents[1] / "golden"


def test_decisions_on_the_golden_log_are_those_that_were_reviewed():
    settings = Settings()
    replay = Replay(Pipeline(settings, "clickstream-events", Catalogue()), settings.partitions)
    with EventFile(GOLDEN / "events.jsonl", "clickscore") as events:
        decisions = b"".join((m.value or b"") + b"\n" for out in replay.run(events) for m in out.recommendations)
    assert decisions == (GOLDEN / "decisions.jsonl").read_bytes()
