import numpy as np
import pytest

from clickscore.model.trees import MAX_ROUNDS, LabelledRows, fit_trees, refit_trees

pytestmark = pytest.mark.train


def rows(count: int, seed: int) -> LabelledRows:
    """Return rows whose first feature foretells a purchase a little, and whose others say nothing."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(count, 5)).astype(np.float32)
    return LabelledRows(
        features, rng.integers(5, size=count), (rng.random(count) < 1 / (1 + np.exp(-features[:, 0]))).astype(int)
    )


@pytest.fixture(scope="module")
def fitted():
    return fit_trees(rows(2_000, 0), rows(500, 1))


def test_trees_of_all_rows_are_as_many_as_were_best_for_the_newer(fitted):
    tried, trees = fitted
    for label in ("next_action", "purchase"):
        best = getattr(tried, label).best_iteration
        assert 0 < best < MAX_ROUNDS
        assert getattr(trees, label).current_iteration() == best


def test_trees_that_are_fitted_again_are_as_many(fitted):
    _, trees = fitted
    refitted = refit_trees(trees, rows(3_000, 2))
    assert [forest.current_iteration() for forest in refitted] == [forest.current_iteration() for forest in trees]
    assert refitted.purchase.num_model_per_iteration() == 1


def test_what_foretells_a_purchase_is_found(fitted):
    _, trees = fitted
    new_rows = rows(2_000, 3)
    logits = trees.logits(new_rows.features)[:, 5]
    assert logits[new_rows.features[:, 0] > 1].mean() > logits[new_rows.features[:, 0] < -1].mean() + 1
