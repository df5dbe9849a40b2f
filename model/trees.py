"""Trees: LightGBM on prefix features, fitted on the oldest sessions and stopped by the newest of them."""

# pyright: standard
# LightGBM leaves parts of what it returns untyped.

from typing import NamedTuple

import lightgbm
import numpy as np

from clickscore.model.features import Float32Array, Ints
from clickscore.model.metrics import Floats
from clickscore.schemas.manifest import NEXT_ACTIONS

LEAF_COUNTS = (7, 31)
"""Numbers of leaves that are tried; the better one on validation is kept."""
MAX_ROUNDS, EARLY_STOPPING_ROUNDS = 400, 25
LIGHTGBM_PARAMS = {
    "learning_rate": 0.05,
    "min_data_in_leaf": 20,
    "lambda_l2": 1.0,
    "feature_fraction": 0.7,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "use_missing": False,
    "num_threads": 1,
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}


class LabelledRows(NamedTuple):
    """Beginnings of sessions, as features, and what followed."""

    features: Float32Array
    """(n, F)."""
    next_action: Ints
    """(n,)."""
    purchase: Ints
    """(n,)."""

    def only(self, rows: slice) -> "LabelledRows":
        """Return some of them."""
        return LabelledRows(self.features[rows], self.next_action[rows], self.purchase[rows])

    def and_those(self, other: "LabelledRows") -> "LabelledRows":
        """Return both, one after the other."""
        return LabelledRows(
            np.concatenate((self.features, other.features)),
            np.concatenate((self.next_action, other.next_action)),
            np.concatenate((self.purchase, other.purchase)),
        )


class Trees(NamedTuple):
    """Two forests on the same features."""

    next_action: lightgbm.Booster
    purchase: lightgbm.Booster

    def logits(self, features: Float32Array) -> Floats:
        """Return the logits of the next actions, then of a purchase: (n, 6)."""
        of_action = np.asarray(self.next_action.predict(features, raw_score=True))
        of_purchase = np.asarray(self.purchase.predict(features, raw_score=True))
        return np.concatenate((of_action, of_purchase[:, None]), axis=1)


def fit_trees(older: LabelledRows, newer: LabelledRows, seed: int = 0) -> tuple[Trees, Trees]:
    """Return forests that learned from `older`, as many trees and leaves as were best for `newer`, and the same of all.

    What the first say of `newer` they have not learned, but for where they stopped.
    """
    of_action = {"objective": "multiclass", "num_class": len(NEXT_ACTIONS), "seed": seed}
    of_purchase = {"objective": "binary", "seed": seed}
    tried = Trees(_fit(older, newer, "next_action", of_action), _fit(older, newer, "purchase", of_purchase))
    return tried, refit_trees(tried, older.and_those(newer))


def refit_trees(trees: Trees, rows: LabelledRows) -> Trees:
    """Return forests of the same settings and number of trees that learned from these rows."""
    return Trees(
        *(
            lightgbm.train(
                forest.params | {"num_iterations": _rounds(forest)}, lightgbm.Dataset(rows.features, outcome)
            )
            for forest, outcome in zip(trees, (rows.next_action, rows.purchase), strict=True)
        )
    )


def _fit(older: LabelledRows, newer: LabelledRows, of: str, objective: dict[str, object]) -> lightgbm.Booster:
    learned = lightgbm.Dataset(older.features, getattr(older, of), free_raw_data=False)
    kept_apart = learned.create_valid(newer.features, getattr(newer, of))
    tried: list[tuple[float, lightgbm.Booster]] = []
    for leaves in LEAF_COUNTS:
        settings = {**LIGHTGBM_PARAMS, **objective, "num_leaves": leaves}
        stop = lightgbm.early_stopping(EARLY_STOPPING_ROUNDS, verbose=False)
        found = lightgbm.train(settings, learned, MAX_ROUNDS, valid_sets=[kept_apart], callbacks=[stop])
        (loss,) = found.best_score["valid_0"].values()
        tried.append((float(loss), found))
    return min(tried, key=lambda trial: trial[0])[1]


def _rounds(forest: lightgbm.Booster) -> int:
    """Return how many trees a class has: up to the best, where early stopping has looked for it."""
    return forest.best_iteration if forest.best_iteration > 0 else forest.current_iteration()
