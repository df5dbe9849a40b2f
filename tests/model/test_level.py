import numpy as np
import pytest

from clickscore.export.random_bundle import write_random_bundle
from clickscore.model.bundle_heads import run_heads
from clickscore.model.calibration import Affine, Calibration, Probabilities
from clickscore.model.level import (
    MAX_SCALE,
    MAX_SHIFT,
    correct_level,
    describe_level,
    fit_level,
    is_unchanged,
)
from clickscore.model.metrics import log_loss
from clickscore.model.onnx_runtime import open_graph
from clickscore.model.prefix_features import FullSessions, make_full_sessions, mark_purchased
from clickscore.schemas.manifest import NEXT_ACTIONS, CalibrationReport, Manifest
from tests.model.builders import TINY, flat, shoppers

pytestmark = pytest.mark.train

ROWS = np.arange(1, 9)


@pytest.fixture(scope="module")
def random_bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("level") / "bundle"
    manifest = write_random_bundle(folder, list("abcdefgh"), TINY.model)
    return open_graph(folder / "model.onnx"), manifest


def recent(*sessions: str) -> FullSessions:
    return make_full_sessions(flat(sessions), ROWS)


BUYERS = ["view:a view:b", "view:c cart:c purchase:c", "view:d"] * 60


def judge(bundle: tuple[object, Manifest], sessions: FullSessions, correction: Calibration | None):
    graph, manifest = bundle
    ends = np.flatnonzero(~mark_purchased(sessions))
    _, predicted = run_heads(graph, manifest, sessions, ends)
    if correction:
        predicted = correct_level(predicted, correction)
    return (
        log_loss(predicted.next_action, sessions.next_action[ends]),
        log_loss(predicted.purchase, sessions.purchase[ends]),
        predicted.purchase.mean() - sessions.purchase[ends].mean(),
    )


def test_level_follows_the_recent_sessions(random_bundle):
    sessions = recent(*BUYERS)
    correction = fit_level(*random_bundle, sessions)
    before, after = judge(random_bundle, sessions, None), judge(random_bundle, sessions, correction)
    assert after[0] < before[0]
    assert after[1] < before[1]
    assert abs(after[2]) < abs(before[2])


def test_few_sessions_change_nothing(random_bundle):
    correction = fit_level(*random_bundle, recent(*BUYERS[:30]))
    assert is_unchanged(correction.next_action)
    assert is_unchanged(correction.purchase)


def test_sessions_on_unknown_items_alone_change_nothing(random_bundle):
    sessions = make_full_sessions(flat(BUYERS), np.zeros(8, dtype=np.int64))
    correction = fit_level(*random_bundle, sessions)
    assert is_unchanged(correction.next_action)
    assert correction.report.events == 0


def test_shift_at_the_mean_logit_is_bounded(random_bundle):
    correction = fit_level(*random_bundle, recent(*["view:a view:b view:c view:d"] * 200))
    described = describe_level(correction, 200, 0, 1)
    shifts = [*described.action_shifts.values(), described.purchase_shift]
    assert max(map(abs, shifts)) <= MAX_SHIFT + 1e-6
    assert 0 <= described.action_scale <= MAX_SCALE


def test_correction_is_described_by_scale_and_shift_at_the_mean():
    report = CalibrationReport(method="", events=7, before={"a": 1 / 3}, after={"a": 2 / 3})
    correction = Calibration(
        next_action=Affine(scales=(0.5,), bias=(0.0, 0.0, 1.0, 0.0, 0.0)),
        purchase=Affine(scales=(1.0,), bias=(-0.25,)),
        report=report,
        prior_logits=(-2.0,) * 6,
    )
    described = describe_level(correction, 3, 10, 20)
    assert described.action_shifts == dict(zip(NEXT_ACTIONS, (1.0, 1.0, 2.0, 1.0, 1.0), strict=True))
    assert (described.action_scale, described.purchase_scale, described.purchase_shift) == (0.5, 1.0, -0.25)
    assert (described.sessions, described.events, described.closed_from, described.closed_until) == (3, 7, 10, 20)
    assert described.before == {"a": 0.333333}


def test_scale_of_zero_gives_the_shares_of_the_bias():
    shares = np.array([0.5, 0.2, 0.1, 0.1, 0.1])
    report = CalibrationReport(method="", events=0, before={}, after={})
    correction = Calibration(
        next_action=Affine(scales=(0.0,), bias=tuple(np.log(shares).tolist())),
        purchase=Affine(scales=(0.0,), bias=(0.0,)),
        report=report,
    )
    predicted = Probabilities(np.full((2, 5), 0.2), np.array([0.1, 0.9]))
    corrected = correct_level(predicted, correction)
    assert corrected.next_action == pytest.approx(np.tile(shares, (2, 1)))
    assert corrected.purchase == pytest.approx([0.5, 0.5])


def test_generated_shoppers_are_sessions_without_a_level_of_their_own(random_bundle):
    """A correction that was fitted on a half of the same shop helps on the other half as well."""
    texts = [" ".join(f"{event.action}:{event.item_id}".rstrip(":") for event in s.events) for s in shoppers(600, 8)]
    texts = [text.replace("item-", "").translate(str.maketrans("01234567", "abcdefgh")) for text in texts]
    first, second = recent(*texts[:300]), recent(*texts[300:])
    correction = fit_level(*random_bundle, first)
    assert judge(random_bundle, second, correction)[:2] < judge(random_bundle, second, None)[:2]
