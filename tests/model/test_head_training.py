import numpy as np
import pytest

from clickscore.model.calibration import blend_logits, to_probabilities
from clickscore.model.dataset import load_dataset
from clickscore.model.examples import Examples
from clickscore.model.head_training import fit_heads
from clickscore.model.predict import Predictions
from clickscore.model.prefix_features import make_full_sessions
from tests.model.builders import TINY, closed, write_sessions

pytestmark = pytest.mark.train


def silent(of: Examples) -> Predictions:
    """Answer as one that knows nothing, after every event."""
    events = len(of.items)
    return Predictions(np.zeros(events, dtype=np.int64), np.full((events, 5), 0.2), np.full(events, 0.5))


def test_sessions_that_are_longer_than_the_model_reads_count_too(tmp_path):
    """Those that buy are long: calibrated without them, nobody would ever buy anything."""
    rng = np.random.default_rng(0)
    long = TINY.model.max_length + 4
    told = []
    for number in range(1_200):
        buys = rng.random() < 0.3
        words = [f"view:item-{rng.integers(30)}" for _ in range(long if buys else 4)]
        told.append(closed(number, " ".join([*words, "purchase:item-1"] if buys else words)))
    dataset = load_dataset([write_sessions(tmp_path / "sessions.jsonl", told)], TINY)
    heads = fit_heads(dataset, silent, TINY)
    assert heads.stack is not None
    of = dataset.tree_data
    every = make_full_sessions(of.sessions.select(of.held_out), of.rows)
    at = every.starts[:-1]  # the first event, which says nothing
    members = [
        np.tile(heads.calibration.prior_logits, (len(at), 1)),
        heads.stack.logits_after(every, at, heads.max_length),
    ]
    assert to_probabilities(blend_logits(members, heads.calibration)).purchase.mean() == pytest.approx(0.3, abs=0.08)
