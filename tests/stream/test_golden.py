"""Golden decisions: a small log and its decisions, byte for byte. A change of behaviour is a reviewed difference.

After an intended change: `clickscore replay tests/golden/events.jsonl --order file --out tests/golden/decisions.jsonl`.
"""

from pathlib import Path

from clickscore.stream.pipeline import Pipeline
from clickscore.stream.reference.catalogue import Catalogue
from clickscore.stream.replay.file_source import FileSource
from clickscore.stream.replay.source import FilePosition
from clickscore.stream.settings import PolicySettings, SessionSettings

GOLDEN = Path(__file__).parents[1] / "golden"


def test_decisions_on_the_golden_log_are_those_that_were_reviewed():
    pipeline = Pipeline(SessionSettings(), PolicySettings(), "clickstream-events", Catalogue())
    with FileSource(GOLDEN / "events.jsonl", "clickscore", range(4), FilePosition(offsets=(0,) * 4)) as source:
        outputs = [output for batches in source.batches() for output in pipeline.process_all(batches)]
    decisions = b"".join((m.value or b"") + b"\n" for output in outputs for m in output.recommendations)
    assert decisions == (GOLDEN / "decisions.jsonl").read_bytes()
