import numpy as np
import pytest
import torch

from model.calibration import Probabilities, calibrate, calibrated, fold_in
from tests.model.builders import TINY, network

pytestmark = pytest.mark.train


def told(events: int, scale: float = 1.0, shift: float = 0.0, seed: int = 0):
    """Return what was said with logits of the truth times `scale` plus `shift`, and what came by the truth."""
    rng = np.random.default_rng(seed)
    actions, purchase = rng.normal(size=(events, 5)), rng.normal(-1, 1, size=events)
    of_actions = np.exp(actions) / np.exp(actions).sum(axis=1, keepdims=True)
    said = np.exp(scale * actions)
    next_action = (of_actions.cumsum(axis=1) < rng.random((events, 1))).sum(axis=1).clip(max=4)
    bought = (rng.random(events) < 1 / (1 + np.exp(-purchase))).astype(np.int64)
    overdone = 1 / (1 + np.exp(-scale * purchase - shift))
    return Probabilities(said / said.sum(axis=1, keepdims=True), overdone), next_action, bought


def test_overconfident_heads_are_brought_back():
    calibration = calibrate(*told(20_000, scale=2.0, shift=0.5))
    assert calibration.next_action.scale == pytest.approx(0.5, abs=0.03)
    assert calibration.purchase.scale == pytest.approx(0.5, abs=0.03)
    none, some = calibration.purchase.bias
    assert some - none == pytest.approx(-0.25, abs=0.05)


def test_report_says_what_it_did():
    report = calibrate(*told(20_000, scale=2.0)).report
    assert report.before["purchase_calibration_error"] > 0.05
    assert report.after["purchase_calibration_error"] < 0.01
    assert report.after["next_action_log_loss"] < report.before["next_action_log_loss"]


def test_what_it_reaches_holds_on_other_events():
    calibration = calibrate(*told(20_000, scale=2.0, shift=1.0))
    said, _, bought = told(20_000, scale=2.0, shift=1.0, seed=1)
    purchase = calibrated(said, calibration).purchase
    assert abs(float(purchase.mean() - bought.mean())) < 0.01


def test_few_events_change_little():
    calibration = calibrate(*told(4, scale=3.0))
    assert abs(calibration.purchase.scale - 1) < 0.2


def test_one_outcome_alone_gives_no_certainty():
    said, next_action, _ = told(50)
    calibration = calibrate(said, next_action, np.zeros(50, dtype=np.int64))
    purchase = calibrated(said, calibration).purchase
    assert np.isfinite(purchase).all()
    assert (purchase > 0).all()


def test_folded_heads_say_what_was_calibrated():
    calibration = calibrate(*told(5_000, scale=2.0, shift=1.0))
    model, _ = network(TINY.model, 10)
    vectors = torch.randn(50, TINY.model.dim)

    def said() -> Probabilities:
        with torch.no_grad():
            purchase = model.purchase_logit(vectors).sigmoid()
            return Probabilities(model.action_logits(vectors).softmax(dim=-1).numpy(), purchase.numpy())

    expected = calibrated(said(), calibration)
    fold_in(model, calibration)
    for found, wanted in zip(said(), expected, strict=True):
        assert found == pytest.approx(wanted, abs=1e-5)
