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


def told(events: int, scale: float = 1.0, shift: float = 0.0, seed: int = 0):
    """Return the logits of the truth times `scale`, a purchase's plus `shift`, and what came by the truth."""
    rng = np.random.default_rng(seed)
    truth = np.concatenate((rng.normal(size=(events, 5)), rng.normal(-1, 1, (events, 1))), axis=1)
    next_action, purchase = to_probabilities(truth)
    came = (next_action.cumsum(axis=1) < rng.random((events, 1))).sum(axis=1).clip(max=4)
    bought = (rng.random(events) < purchase).astype(np.int64)
    return scale * truth + np.array([0, 0, 0, 0, 0, shift]), came, bought


def fitted(*members, came, bought, events_a_session: int = 4):
    sessions = np.arange(len(came)) // events_a_session
    return calibrate(members, came, bought, sessions, "some")


def alone(said, came, bought):
    return fitted(said, came=came, bought=bought)


def test_overconfident_heads_are_brought_back():
    calibration = alone(*told(20_000, scale=2.0, shift=0.5))
    assert calibration.next_action.scales == pytest.approx([0.5], abs=0.03)
    assert calibration.purchase.scales == pytest.approx([0.5], abs=0.03)
    assert calibration.purchase.bias == pytest.approx([-0.25], abs=0.05)


def test_report_says_what_it_did():
    report = alone(*told(20_000, scale=2.0)).report
    assert (report.method, report.events) == ("some", 20_000)
    assert report.before["purchase_calibration_error"] > 0.05
    assert report.after["purchase_calibration_error"] < 0.01
    assert report.after["next_action_log_loss"] < report.before["next_action_log_loss"]


def test_what_it_reaches_holds_on_other_events():
    calibration = alone(*told(20_000, scale=2.0, shift=1.0))
    said, _, bought = told(20_000, scale=2.0, shift=1.0, seed=1)
    purchase = to_probabilities(blend_logits([said], calibration)).purchase
    assert abs(float(purchase.mean() - bought.mean())) < 0.01


def test_few_sessions_change_nothing():
    calibration = alone(*told(4, scale=3.0))
    assert (calibration.purchase.scales, calibration.purchase.bias) == ((1,), (0,))


def test_heads_that_are_right_are_left_as_they_are():
    calibration = alone(*told(2_000))
    assert (calibration.purchase.scales, calibration.purchase.bias) == ((1,), (0,))
    assert (calibration.next_action.scales, set(calibration.next_action.bias)) == ((1,), {0})


def test_one_outcome_alone_gives_no_certainty():
    said, came, _ = told(50)
    calibration = alone(said, came, np.zeros(50, dtype=np.int64))
    purchase = to_probabilities(blend_logits([said], calibration)).purchase
    assert ((purchase > 0) & (purchase < 1)).all()


def test_stack_that_knows_nothing_is_hardly_listened_to():
    said, came, bought = told(20_000)
    noise = np.random.default_rng(5).normal(size=said.shape)
    calibration = fitted(said, noise, came=came, bought=bought)
    assert calibration.purchase.scales == pytest.approx([1, 0], abs=0.06)
    assert calibration.next_action.scales == pytest.approx([1, 0], abs=0.06)


def test_transformer_that_adds_nothing_is_left_out():
    said, came, bought = told(20_000)
    noise = np.random.default_rng(5).normal(size=said.shape)
    calibration = fitted(noise, said, came=came, bought=bought)
    assert calibration.purchase.scales == calibration.next_action.scales == (0, 1)


def test_transformer_that_knows_more_than_others_is_kept():
    said, came, bought = told(20_000)
    dim = said + np.random.default_rng(5).normal(size=said.shape)
    calibration = fitted(said, dim, came=came, bought=bought)
    assert min(calibration.purchase.scales[0], calibration.next_action.scales[0]) > 0.9


@pytest.mark.parametrize("members", [1, 2])
def test_where_all_is_noise_the_shares_are_said(members):
    _, came, bought = told(4_000)
    noise = np.random.default_rng(5).normal(scale=3, size=(members, 4_000, 6))
    calibration = fitted(*noise, came=came, bought=bought)
    said = to_probabilities(blend_logits(list(noise), calibration))
    assert said.purchase == pytest.approx(bought.mean(), abs=1e-3)
    assert said.next_action == pytest.approx(np.tile(np.bincount(came) / 4_000, (4_000, 1)), abs=1e-3)


def test_outcomes_of_one_session_are_no_evidence_of_their_own():
    """Each session has one outcome, and says it 50 times: by events a change would look useful by chance."""
    rng = np.random.default_rng(3)
    changed = 0
    for _ in range(20):
        truth = rng.normal(size=(60, 6))
        outcome = (rng.random(60) < 1 / (1 + np.exp(-truth[:, 5]))).astype(np.int64)
        bought, said = np.repeat(outcome, 50), np.repeat(truth, 50, axis=0)
        calibration = fitted(said, came=bought, bought=bought, events_a_session=50)
        changed += calibration.purchase.scales != (1,)
    assert changed <= 2


def test_logits_of_probabilities_say_the_same():
    said, _, _ = told(100)
    for found, expected in zip(
        to_probabilities(to_logits(to_probabilities(said))), to_probabilities(said), strict=True
    ):
        assert found == pytest.approx(expected)


def heads_say(model, vectors) -> np.ndarray:
    with torch.no_grad():
        return torch.cat((model.action_logits(vectors), model.purchase_logit(vectors)[:, None]), dim=1).numpy()


def test_folded_heads_say_what_was_calibrated():
    calibration = alone(*told(5_000, scale=2.0, shift=1.0))
    model, _ = network(TINY.model, 10)
    vectors = torch.randn(50, TINY.model.dim)
    expected = to_probabilities(blend_logits([heads_say(model, vectors)], calibration))
    fold_in(model, calibration)
    for found, wanted in zip(to_probabilities(heads_say(model, vectors)), expected, strict=True):
        assert found == pytest.approx(wanted, abs=1e-5)


def test_folded_heads_beside_a_stack_lack_its_biases_and_what_is_said_in_silence():
    calibration = Calibration(
        next_action=Affine(scales=(0.5, 0.7), bias=(0.1, 0.2, 0.0, -0.1, 0.3)),
        purchase=Affine(scales=(0.6, 0.5), bias=(-0.2,)),
        prior_logits=(0.1, -0.3, 0.2, -0.5, 0.4, -0.6),
        report=CalibrationReport(method="", events=0, before={}, after={}),
    )
    model, _ = network(TINY.model, 10)
    vectors = torch.randn(50, TINY.model.dim)
    said, silent = heads_say(model, vectors), np.array(calibration.prior_logits)
    stack = np.zeros_like(said)
    of_silence = blend_logits([np.broadcast_to(silent, said.shape), stack], calibration)
    fold_in(model, calibration)
    assert heads_say(model, vectors) + of_silence == pytest.approx(blend_logits([said, stack], calibration), abs=1e-5)
