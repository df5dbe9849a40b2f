"""Trees: gradient-boosted trees (LightGBM) on prefix features, with early stopping on the newest sessions."""

# pyright: standard
# LightGBM leaves parts of what it returns untyped.

from collections.abc import Sequence
from typing import NamedTuple

import lightgbm
import numpy as np

from clickscore.model.array_types import Float32Array, Floats, Ints
from clickscore.schemas.manifest import NEXT_ACTIONS

LEAF_COUNTS = (7, 31)
"""Candidates for the leaves of a tree: 31 is LightGBM's default, 7 suits few sessions."""
MAX_ROUNDS = 400
"""Boosting rounds at most; at this learning rate early stopping usually ends a fit sooner."""
EARLY_STOPPING_ROUNDS = 25
"""Rounds without a lower loss on the newer rows, until boosting stops."""
LIGHTGBM_PARAMS = {
    "learning_rate": 0.05,  # half of LightGBM's default: more and smaller steps
    "min_data_in_leaf": 20,  # LightGBM's default
    "lambda_l2": 1.0,  # shrinks leaves with few rows
    "feature_fraction": 0.7,  # columns that a tree sees
    "bagging_fraction": 0.8,  # rows that a tree sees
    "bagging_freq": 1,  # new rows for every tree
    "use_missing": False,  # features have no missing values, and the graph has no branch for them
    "num_threads": 1,  # with the next two: the same trees on every machine
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}


class LabelledRows(NamedTuple):
    """Prefix features and labels."""

    features: Float32Array
    """Prefix features: (n, F)."""
    next_action: Ints
    """Label: class of `NEXT_ACTIONS`: (n,)."""
    purchase: Ints
    """Label: 1 if a purchase follows, else 0: (n,)."""

    def select(self, rows: slice) -> "LabelledRows":
        """Return the rows of a slice."""
        return LabelledRows(self.features[rows], self.next_action[rows], self.purchase[rows])


def concatenate_rows(parts: Sequence[LabelledRows]) -> LabelledRows:
    """Return the rows of all parts, in this order."""
    return LabelledRows(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


class Trees(NamedTuple):
    """A forest for the next action and a forest for a purchase, on the same features."""

    next_action: lightgbm.Booster
    purchase: lightgbm.Booster

    def logits(self, features: Float32Array) -> Floats:
        """Return the logits of the next actions, then the logit of a purchase: (n, F) -> (n, 6)."""
        action_logits = np.asarray(self.next_action.predict(features, raw_score=True))  # (n, 5)
        purchase_logits = np.asarray(self.purchase.predict(features, raw_score=True))  # (n,)
        return np.concatenate((action_logits, purchase_logits[:, None]), axis=1)


def fit_trees(older: LabelledRows, newer: LabelledRows, seed: int = 0) -> tuple[Trees, Trees]:
    """Return trees fitted on the older rows, and trees of the same size fitted on all rows.

    The newer rows choose only the number of trees and leaves of the first trees, so these trees can still be judged on
    the newer rows.

    Args:
        older: Rows to fit.
        newer: Rows for early stopping and the choice of the leaves.
        seed: Seed of LightGBM's samples of rows and columns.
    """
    action_objective = {"objective": "multiclass", "num_class": len(NEXT_ACTIONS), "seed": seed}
    purchase_objective = {"objective": "binary", "seed": seed}
    stopped = Trees(
        _fit_forest(older, newer, "next_action", action_objective),
        _fit_forest(older, newer, "purchase", purchase_objective),
    )
    return stopped, refit_trees(stopped, concatenate_rows([older, newer]))


def refit_trees(trees: Trees, rows: LabelledRows) -> Trees:
    """Return trees with the same settings and the same number of trees, fitted on the given rows."""
    return Trees(
        *(
            lightgbm.train(
                forest.params | {"num_iterations": _count_rounds(forest)}, lightgbm.Dataset(rows.features, labels)
            )
            for forest, labels in zip(trees, (rows.next_action, rows.purchase), strict=True)
        )
    )


def _fit_forest(older: LabelledRows, newer: LabelledRows, label: str, objective: dict[str, object]) -> lightgbm.Booster:
    """Return the forest with the number of leaves that has the lowest loss on the newer rows."""
    training = lightgbm.Dataset(older.features, getattr(older, label), free_raw_data=False)
    validation = training.create_valid(newer.features, getattr(newer, label))
    candidates: list[tuple[float, lightgbm.Booster]] = []
    for leaves in LEAF_COUNTS:
        params = {**LIGHTGBM_PARAMS, **objective, "num_leaves": leaves}
        stop = lightgbm.early_stopping(EARLY_STOPPING_ROUNDS, verbose=False)
        forest = lightgbm.train(params, training, MAX_ROUNDS, valid_sets=[validation], callbacks=[stop])
        (loss,) = forest.best_score["valid_0"].values()
        candidates.append((float(loss), forest))
    return min(candidates, key=lambda candidate: candidate[0])[1]


def _count_rounds(forest: lightgbm.Booster) -> int:
    """Return the boosting rounds up to the best one, or all rounds without early stopping."""
    return forest.best_iteration if forest.best_iteration > 0 else forest.current_iteration()
