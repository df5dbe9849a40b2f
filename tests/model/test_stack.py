import dataclasses

import numpy as np
import pytest

from clickscore.model.calibration import to_probabilities
from clickscore.model.checkpoint import load_stack, save_stack
from clickscore.model.errors import TrainingError
from clickscore.model.examples import select_model_events
from clickscore.model.prefix_features import (
    FEATURE_NAMES,
    NO_ATTRIBUTES,
    compute_features_after,
    make_full_sessions,
    make_item_attributes,
)
from clickscore.model.stack import (
    ABSENT_LOGIT,
    ONE_HOT_WIDTH,
    LabelledRows,
    _choose_tree_shares,
    fit_linear,
    fit_stack,
    forward_fill,
    one_hot_actions,
    refit_stack,
)
from clickscore.schemas.manifest import NEXT_ACTIONS
from tests.model.builders import flat

pytestmark = pytest.mark.train

ROWS = np.array([1, 2, 3, 4, 0, 0, 0, 0])
FACTS = make_item_attributes(("a", "b", "c", "d"), NO_ATTRIBUTES)
SESSIONS = ["view:a view:b cart:b purchase:b", "view:a view:e search view:d"] * 60
"""A cart is followed by a purchase."""


@pytest.fixture(scope="module")
def full_sessions():
    return make_full_sessions(flat(SESSIONS), ROWS)


@pytest.fixture(scope="module")
def stack(full_sessions):
    return fit_stack([full_sessions], np.arange(len(full_sessions.items)), FACTS, 50, 0)


def test_both_members_learn_what_is_determined(full_sessions, stack):
    features = compute_features_after(full_sessions, np.array([2, 6]), stack.item_features, 50)
    for member in (stack.trees, stack.regression):
        predicted = to_probabilities(member.logits(features))
        assert predicted.purchase[0] > predicted.purchase[1] + 0.5
        assert predicted.next_action[0].argmax() == NEXT_ACTIONS.index("purchase")


def test_stack_that_is_fitted_again_learns_the_same(full_sessions, stack):
    refitted = refit_stack(stack, [full_sessions], FACTS, 50, 0)
    fitted_before, fitted_again = (
        to_probabilities(member.logits_after(full_sessions, np.arange(8), 50)).purchase > 0.5
        for member in (stack, refitted)
    )
    assert fitted_before.tolist() == fitted_again.tolist()


def test_saved_stack_predicts_the_same(full_sessions, stack, tmp_path):
    save_stack(tmp_path, stack)
    loaded = load_stack(tmp_path)
    assert (
        stack.logits_after(full_sessions, np.arange(8), 50) == loaded.logits_after(full_sessions, np.arange(8), 50)
    ).all()


def test_stack_of_a_version_with_other_features_is_refused(stack, tmp_path):
    fewer = dataclasses.replace(stack.regression, weights=stack.regression.weights[1:])
    save_stack(tmp_path, dataclasses.replace(stack, regression=fewer))
    with pytest.raises(TrainingError, match="a version with other prefix features: train a new model"):
        load_stack(tmp_path)


def test_folder_without_a_stack_loads_none(tmp_path):
    assert load_stack(tmp_path) is None


def test_new_items_of_a_grown_stack_are_unknown_ones(stack):
    grown = stack.grow(6)
    assert (grown.item_features.values[5:] == stack.item_features.values[0]).all()
    assert (grown.item_features.values[:5] == stack.item_features.values).all()
    assert grown.item_features.categories.tolist() == [0] * 7
    assert grown.item_features.kinds.tolist() == [*stack.item_features.kinds.tolist(), 0, 0]


def test_action_that_never_came_is_hardly_ever_expected(full_sessions, stack):
    assert stack.regression.bias[NEXT_ACTIONS.index("favourite")] == pytest.approx(ABSENT_LOGIT)
    predicted = to_probabilities(stack.logits_after(full_sessions, np.arange(8), 50)).next_action
    assert (predicted[:, NEXT_ACTIONS.index("favourite")] < 1e-6).all()


def test_outcome_that_is_always_the_same_is_expected():
    rows = LabelledRows(
        np.zeros((20, len(FEATURE_NAMES)), dtype=np.float32), np.full(20, 4), np.zeros(20, dtype=np.int64)
    )
    predicted = to_probabilities(fit_linear(rows).logits(rows.features))
    assert predicted.purchase == pytest.approx(0, abs=1e-6)
    assert predicted.next_action[:, 4] == pytest.approx(1)


def test_two_actions_are_separated():
    features = np.zeros((200, len(FEATURE_NAMES)), dtype=np.float32)
    features[::2, 0] = 1
    rows = LabelledRows(features, np.where(features[:, 0] > 0, 1, 4), np.zeros(200, dtype=np.int64))
    predicted = to_probabilities(fit_linear(rows).logits(features)).next_action
    assert predicted.argmax(axis=1).tolist() == [1, 4] * 100
    assert predicted.sum(axis=1) == pytest.approx(1)


def test_newest_actions_have_a_column_a_kind(full_sessions, stack):
    wide = one_hot_actions(compute_features_after(full_sessions, np.arange(8), stack.item_features, 50))
    assert wide.shape == (8, ONE_HOT_WIDTH)
    assert (wide[:, -24:].reshape(8, 3, 8).sum(axis=2) == 1).all()


def test_forward_fill_carries_logits_within_a_session():
    sessions = flat(["view:e view:a view:e", "search view:b", "view:f"])
    selected_events = select_model_events(sessions, ROWS, 50)
    logits = np.arange(1, 13, dtype=float).reshape(2, 6)
    filled = forward_fill(logits, selected_events, make_full_sessions(sessions, ROWS), np.full(6, -3.0))
    assert filled[:, 0].tolist() == [-3, 1, 1, -3, 7, -3]


def test_later_events_change_no_prediction(full_sessions, stack):
    cut = make_full_sessions(flat([" ".join(session.split()[:2]) for session in SESSIONS]), ROWS)
    assert (
        stack.logits_after(full_sessions, np.array([0, 1, 4, 5]), 50) == stack.logits_after(cut, np.arange(4), 50)
    ).all()


def test_share_goes_to_the_better_member():
    rng = np.random.default_rng(0)
    rows = LabelledRows(
        np.zeros((3_000, 1), dtype=np.float32), rng.integers(5, size=3_000), rng.integers(2, size=3_000)
    )
    informative = np.concatenate((np.eye(5)[rows.next_action], 2.0 * rows.purchase[:, None] - 1), axis=1)
    noise = rng.normal(size=(3_000, 6))
    assert _choose_tree_shares(informative, noise, rows).tolist() == [1] * 6
    assert _choose_tree_shares(noise, informative, rows).tolist() == [0] * 6
    mixed = np.where(np.arange(6) < 5, informative, noise)
    assert _choose_tree_shares(mixed, informative + noise - mixed, rows).tolist() == [1] * 5 + [0]
