import msgspec
import pytest

from clickscore.model.checkpoint import TrainingRecord, read_record
from clickscore.model.config import ModelConfig, TrainConfig
from clickscore.model.transformer import SessionTransformer

pytestmark = pytest.mark.train

REPORT = {
    "files": ["sessions.jsonl"],
    "sha256": "369a77af",
    "lines": 160,
    "dropped": {"repeat of a session": 1},
    "problem": "",
    "sessions": 159,
    "events": 717,
    "first_closed_at": 0,
    "last_closed_at": 1059000,
    "items": 31,
    "training": 151,
    "validation": 5,
    "held_out": 3,
}
RECORD = {
    "config": {"model": {"dim": 16}, "top_up_share": 0.25},
    "report": REPORT,
    "popular": ["item-0", "item-27"],
    "epochs": [{"number": 1, "loss": 4.5, "metrics": {"mrr@20": 0.25}}],
    "best": 1,
    "measured": {"hit_rate@20": 0.5},
    "calibration": None,
    "learned": 159,
    "lineage": ["the first"],
    "finished": True,
}
"""A `checkpoint.json` of version 0.1: its names are those that every later version reads and writes."""


def test_record_of_the_first_version_is_read(tmp_path):
    (tmp_path / "checkpoint.json").write_bytes(msgspec.json.encode(RECORD))
    record = read_record(tmp_path)
    assert record.config == TrainConfig(model=ModelConfig(dim=16), top_up_share=0.25)
    assert record.popular_items == ("item-0", "item-27")
    assert (record.best_epoch, record.counted_sessions, record.finished) == (1, 159, True)
    assert record.held_out_metrics == {"hit_rate@20": 0.5}


def test_record_is_written_under_the_same_names():
    record = msgspec.convert(RECORD, TrainingRecord)
    assert msgspec.json.decode(msgspec.json.encode(record)).keys() == RECORD.keys()


def test_tensors_keep_the_names_of_the_first_version():
    block = [
        f"{part}.{kind}" for part in ("norm_attention", "norm_ffn", "ffn_in", "ffn_out") for kind in ("weight", "bias")
    ]
    attention = [f"{part}.{kind}" for part in ("query", "key_value", "output") for kind in ("weight", "bias")]
    assert set(SessionTransformer(ModelConfig(dim=16), items=5).state_dict()) == {
        "item",
        "gate",
        "action.weight",
        *(f"blocks.0.{name}" for name in block),
        *(f"blocks.0.attention.{name}" for name in (*attention, "distance")),
        "norm.weight",
        "norm.bias",
        *(
            f"readout.{name}"
            for name in ("query.weight", "query.bias", "key.weight", "key.bias", "own.weight", "distance")
        ),
        "repeats.table",
        "repeats.readiness.weight",
        "repeats.readiness.bias",
        "next_action.weight",
        "next_action.bias",
        "purchase.weight",
        "purchase.bias",
    }
