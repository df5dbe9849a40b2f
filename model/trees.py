"""Trees: LightGBM on prefix features, fitted on the oldest sessions and stopped by the newest of them."""

# pyright: standard
# LightGBM leaves parts of what it returns untyped.

from typing import NamedTuple

import lightgbm
import numpy as np

from model.calibration import Probabilities
from model.features import Ints
from model.prefix_features import Singles
from schemas.manifest import NEXT_ACTIONS

LEAVES = (7, 31)
"""Numbers of leaves that are tried; the better one on validation is kept."""
ROUNDS, PATIENCE = 400, 25
SETTINGS = {
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


class Rows(NamedTuple):
    """Beginnings of sessions, as features, and what followed."""

    features: Singles
    """(n, F)."""
    next_action: Ints
    """(n,)."""
    purchase: Ints
    """(n,)."""

    def only(self, rows: slice) -> "Rows":
        """Return some of them."""
        return Rows(self.features[rows], self.next_action[rows], self.purchase[rows])


class Trees(NamedTuple):
    """Two forests on the same features."""

    next_action: lightgbm.Booster
    purchase: lightgbm.Booster

    def logits(self, features: Singles) -> tuple[np.ndarray, np.ndarray]:
        """Return the logits of the next actions (n, 5), and of a purchase (n,)."""
        return (
            np.asarray(self.next_action.predict(features, raw_score=True)),
            np.asarray(self.purchase.predict(features, raw_score=True)),
        )

    def probabilities(self, features: Singles) -> Probabilities:
        """Return what they say."""
        return Probabilities(
            np.asarray(self.next_action.predict(features)), np.asarray(self.purchase.predict(features))
        )


def fit_trees(older: Rows, newer: Rows, seed: int = 0) -> Trees:
    """Return forests that learned from all rows, as many trees and leaves as were best for `newer` after `older`."""
    of_action = {"objective": "multiclass", "num_class": len(NEXT_ACTIONS), "seed": seed}
    return Trees(
        _fit(older, newer, "next_action", of_action),
        _fit(older, newer, "purchase", {"objective": "binary", "seed": seed}),
    )


def _fit(older: Rows, newer: Rows, of: str, objective: dict[str, object]) -> lightgbm.Booster:
    learned = lightgbm.Dataset(older.features, getattr(older, of), free_raw_data=False)
    kept_apart = learned.create_valid(newer.features, getattr(newer, of))
    tried: list[tuple[float, int, dict[str, object]]] = []
    for leaves in LEAVES:
        settings = {**SETTINGS, **objective, "num_leaves": leaves}
        stop = lightgbm.early_stopping(PATIENCE, verbose=False)
        found = lightgbm.train(settings, learned, ROUNDS, valid_sets=[kept_apart], callbacks=[stop])
        (loss,) = found.best_score["valid_0"].values()
        tried.append((float(loss), found.best_iteration, settings))
    _, rounds, settings = min(tried, key=lambda trial: trial[0])
    both = np.concatenate((older.features, newer.features))
    outcome = np.concatenate((getattr(older, of), getattr(newer, of)))
    return lightgbm.train(settings, lightgbm.Dataset(both, outcome), max(1, rounds))
