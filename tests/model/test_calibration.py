import numpy as np
import pytest
import torch

from clickscore.model.calibration import (
    Affine,
    Calibration,
    blend_logits,
    calibrate,
    fold_in,
    to_logits,
    to_probabilities,
)
from clickscore.schemas.manifest import CalibrationReport
from tests.model.builders import TINY
from tests.model.networks import network

pytestmark = pytest.mark.train


def simulate_logits(events: int, scale: float = 1.0, shift: float = 0.0, seed: int = 0):
    """Return the logits of the truth times `scale`, a purchase's plus `shift`, and what came by the truth."""
    rng = np.random.default_rng(seed)
    truth = np.concatenate((rng.normal(size=(events, 5)), rng.normal(-1, 1, (events, 1))), axis=1)
    next_action, purchase = to_probabilities(truth)
    actions = (next_action.cumsum(axis=1) < rng.random((events, 1))).sum(axis=1).clip(max=4)
    purchases = (rng.random(events) < purchase).astype(np.int64)
    return scale * truth + np.array([0, 0, 0, 0, 0, shift]), actions, purchases


def fit(*members, actions, purchases, events_a_session: int = 4):
    sessions = np.arange(len(actions)) // events_a_session
    return calibrate(members, actions, purchases, sessions, "some")


def fit_single(logits, actions, purchases):
    return fit(logits, actions=actions, purchases=purchases)


def test_overconfident_heads_are_scaled_down():
    calibration = fit_single(*simulate_logits(20_000, scale=2.0, shift=0.5))
    assert calibration.next_action.scales == pytest.approx([0.5], abs=0.03)
    assert calibration.purchase.scales == pytest.approx([0.5], abs=0.03)
    assert calibration.purchase.bias == pytest.approx([-0.25], abs=0.05)


def test_report_has_the_metrics_before_and_after():
    report = fit_single(*simulate_logits(20_000, scale=2.0)).report
    assert (report.method, report.events) == ("some", 20_000)
    assert report.before["purchase_calibration_error"] > 0.05
    assert report.after["purchase_calibration_error"] < 0.01
    assert report.after["next_action_log_loss"] < report.before["next_action_log_loss"]


def test_order_of_the_logits_survives_a_wrong_level_though_its_gain_is_not_significant():
    rng = np.random.default_rng(0)
    signal = rng.normal(size=800)
    purchases = (rng.random(800) < 1 / (1 + np.exp(2 - 0.6 * signal))).astype(np.int64)
    logits = np.zeros((800, 6))
    logits[:, 5] = 0.6 * signal + 1
    calibration = fit(logits, actions=np.zeros(800, dtype=np.int64), purchases=purchases, events_a_session=1)
    assert 0.3 < calibration.purchase.scales[0] < 0.8


def test_calibration_holds_on_other_events():
    calibration = fit_single(*simulate_logits(20_000, scale=2.0, shift=1.0))
    logits, _, purchases = simulate_logits(20_000, scale=2.0, shift=1.0, seed=1)
    purchase = to_probabilities(blend_logits([logits], calibration)).purchase
    assert abs(float(purchase.mean() - purchases.mean())) < 0.01


def test_few_sessions_change_nothing():
    calibration = fit_single(*simulate_logits(4, scale=3.0))
    assert (calibration.purchase.scales, calibration.purchase.bias) == ((1,), (0,))


def test_calibrated_heads_stay_unchanged():
    calibration = fit_single(*simulate_logits(2_000))
    assert (calibration.purchase.scales, calibration.purchase.bias) == ((1,), (0,))
    assert (calibration.next_action.scales, set(calibration.next_action.bias)) == ((1,), {0})


def test_a_single_outcome_gives_no_certainty():
    logits, actions, _ = simulate_logits(50)
    calibration = fit_single(logits, actions, np.zeros(50, dtype=np.int64))
    purchase = to_probabilities(blend_logits([logits], calibration)).purchase
    assert ((purchase > 0) & (purchase < 1)).all()


def test_stack_of_noise_gets_hardly_any_weight():
    logits, actions, purchases = simulate_logits(20_000)
    noise = np.random.default_rng(5).normal(size=logits.shape)
    calibration = fit(logits, noise, actions=actions, purchases=purchases)
    assert calibration.purchase.scales == pytest.approx([1, 0], abs=0.06)
    assert calibration.next_action.scales == pytest.approx([1, 0], abs=0.06)


def test_transformer_that_adds_nothing_is_left_out():
    logits, actions, purchases = simulate_logits(20_000)
    noise = np.random.default_rng(5).normal(size=logits.shape)
    calibration = fit(noise, logits, actions=actions, purchases=purchases)
    assert calibration.purchase.scales == calibration.next_action.scales == (0, 1)


def test_better_transformer_keeps_its_weight():
    logits, actions, purchases = simulate_logits(20_000)
    noisy = logits + np.random.default_rng(5).normal(size=logits.shape)
    calibration = fit(logits, noisy, actions=actions, purchases=purchases)
    assert min(calibration.purchase.scales[0], calibration.next_action.scales[0]) > 0.9


@pytest.mark.parametrize("members", [1, 2])
def test_noise_is_replaced_by_the_class_frequencies(members):
    _, actions, purchases = simulate_logits(4_000)
    noise = np.random.default_rng(5).normal(scale=3, size=(members, 4_000, 6))
    calibration = fit(*noise, actions=actions, purchases=purchases)
    predicted = to_probabilities(blend_logits(list(noise), calibration))
    assert predicted.purchase == pytest.approx(purchases.mean(), abs=1e-3)
    assert predicted.next_action == pytest.approx(np.tile(np.bincount(actions) / 4_000, (4_000, 1)), abs=1e-3)


@pytest.mark.slow
def test_events_of_one_session_are_no_independent_evidence():
    """Each session has one outcome, and says it 50 times: by events a change would look useful by chance."""
    rng = np.random.default_rng(3)
    changed = 0
    for _ in range(20):
        truth = rng.normal(size=(60, 6))
        outcome = (rng.random(60) < 1 / (1 + np.exp(-truth[:, 5]))).astype(np.int64)
        purchases, logits = np.repeat(outcome, 50), np.repeat(truth, 50, axis=0)
        calibration = fit(logits, actions=purchases, purchases=purchases, events_a_session=50)
        changed += calibration.purchase.scales != (1,)
    assert changed <= 2


def test_logits_of_probabilities_give_the_same_probabilities():
    logits, _, _ = simulate_logits(100)
    for values, expected in zip(
        to_probabilities(to_logits(to_probabilities(logits))), to_probabilities(logits), strict=True
    ):
        assert values == pytest.approx(expected)


def head_logits(model, vectors) -> np.ndarray:
    with torch.no_grad():
        return torch.cat((model.action_logits(vectors), model.purchase_logit(vectors)[:, None]), dim=1).numpy()


def test_folded_heads_give_the_calibrated_probabilities():
    calibration = fit_single(*simulate_logits(5_000, scale=2.0, shift=1.0))
    model, _ = network(TINY.model, 10)
    vectors = torch.randn(50, TINY.model.dim)
    expected = to_probabilities(blend_logits([head_logits(model, vectors)], calibration))
    fold_in(model, calibration)
    for values, expected_values in zip(to_probabilities(head_logits(model, vectors)), expected, strict=True):
        assert values == pytest.approx(expected_values, abs=1e-5)


def test_folded_heads_beside_a_stack_lack_the_biases_and_the_prior_logits():
    calibration = Calibration(
        next_action=Affine(scales=(0.5, 0.7), bias=(0.1, 0.2, 0.0, -0.1, 0.3)),
        purchase=Affine(scales=(0.6, 0.5), bias=(-0.2,)),
        prior_logits=(0.1, -0.3, 0.2, -0.5, 0.4, -0.6),
        report=CalibrationReport(method="", events=0, before={}, after={}),
    )
    model, _ = network(TINY.model, 10)
    vectors = torch.randn(50, TINY.model.dim)
    logits, prior = head_logits(model, vectors), np.array(calibration.prior_logits)
    stack = np.zeros_like(logits)
    prior_part = blend_logits([np.broadcast_to(prior, logits.shape), stack], calibration)
    fold_in(model, calibration)
    assert head_logits(model, vectors) + prior_part == pytest.approx(
        blend_logits([logits, stack], calibration), abs=1e-5
    )
