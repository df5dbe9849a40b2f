import dataclasses

import numpy as np
import pytest

from clickscore.model.calibration import blend_logits, to_probabilities
from clickscore.model.dataset import load_dataset
from clickscore.model.examples import Examples
from clickscore.model.head_training import fit_heads
from clickscore.model.metrics import log_loss
from clickscore.model.predict import Predictions
from clickscore.model.prefix_features import make_full_sessions
from tests.model.builders import TINY, closed, write_sessions

pytestmark = pytest.mark.train


def predict_uniform(examples: Examples) -> Predictions:
    """Return the same probabilities after every event."""
    events = len(examples.items)
    return Predictions(np.zeros(events, dtype=np.int64), np.full((events, 5), 0.2), np.full(events, 0.5))


@pytest.mark.slow
def test_sessions_that_are_longer_than_the_model_reads_count_too(tmp_path):
    """Sessions with a purchase are long: calibrated without them, the purchase head would say that nobody buys."""
    rng = np.random.default_rng(0)
    long = TINY.model.max_length + 4
    sessions = []
    for number in range(1_200):
        buys = rng.random() < 0.3
        words = [f"view:item-{rng.integers(30)}" for _ in range(long if buys else 4)]
        sessions.append(closed(number, " ".join([*words, "purchase:item-1"] if buys else words)))
    dataset = load_dataset([write_sessions(tmp_path / "sessions.jsonl", sessions)], TINY)
    heads = fit_heads(dataset, predict_uniform, TINY)
    assert heads.stack is not None
    data = dataset.tree_data
    held_out = make_full_sessions(data.sessions.select(data.held_out), data.rows)
    first = held_out.starts[:-1]  # the first event, which is the same in all sessions
    members = [
        np.tile(heads.calibration.prior_logits, (len(first), 1)),
        heads.stack.logits_after(held_out, first, heads.max_length),
    ]
    assert to_probabilities(blend_logits(members, heads.calibration)).purchase.mean() == pytest.approx(0.3, abs=0.08)


@pytest.mark.slow
def test_heads_of_a_shop_of_unknown_items_are_no_worse_than_base_rates(tmp_path):
    """Only rare items are never bought: whoever takes an unknown item for a rare one expects no purchase of it."""
    rng = np.random.default_rng(0)
    sessions = []
    for number in range(1_500):
        rare = rng.random() < 0.5
        words = [f"view:rare-{number % 400}" if rare else f"view:item-{rng.integers(20)}"] * 2
        sessions.append(closed(number, " ".join([*words, *([] if rare else ["purchase:item-1"])])))
    config = dataclasses.replace(TINY, min_count=1)
    dataset = load_dataset([write_sessions(tmp_path / "sessions.jsonl", sessions)], config)
    heads = fit_heads(dataset, predict_uniform, config)
    assert heads.stack is not None
    data = dataset.tree_data
    validation = data.sessions.select(data.validation)
    known, unknown = (make_full_sessions(validation, rows) for rows in (data.rows, np.zeros_like(data.rows)))
    losses = []
    for copy in (known, unknown):
        first = copy.starts[:-1]
        members = [np.tile(heads.calibration.prior_logits, (len(first), 1)), heads.stack.logits_after(copy, first, 8)]
        probability = to_probabilities(blend_logits(members, heads.calibration)).purchase
        losses.append(log_loss(probability, copy.purchase[first]))
    base_rate = known.purchase[known.starts[:-1]].mean()
    assert losses[0] < 0.3
    assert losses[1] < log_loss(np.full(len(known.starts) - 1, base_rate), known.purchase[known.starts[:-1]]) + 0.02
