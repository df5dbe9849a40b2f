"""Stack in the graph: trees and a regression on the prefix features, blended with the Transformer's heads.

A forest is one TreeEnsembleRegressor. A value goes left where it is at most a node's threshold; LightGBM's are doubles,
so here they are rounded down to what a float32 can be, which decides every float32 as before.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from clickscore.export.graph_builder import TREES, GraphBuilder
from clickscore.export.prefix_features_graph import PrefixFeaturesGraph
from clickscore.model.calibration import Calibration, class_biases, member_scales
from clickscore.model.prefix_features import FEATURE_NAMES, RECENT_EVENTS
from clickscore.model.stack import ACTION_CODE_COLUMNS, Stack
from clickscore.schemas.events import ACTIONS
from clickscore.schemas.manifest import NEXT_ACTIONS

OUTPUTS = len(NEXT_ACTIONS) + 1


@dataclasses.dataclass
class _Nodes:
    """The attributes of a TreeEnsembleRegressor, node by node and leaf by leaf."""

    columns: dict[str, list[Any]] = dataclasses.field(default_factory=dict[str, list[Any]])

    def add(self, **values: object) -> None:
        for name, value in values.items():
            self.columns.setdefault(name, []).append(value)


def add_stack(graph: GraphBuilder, stack: Stack, calibration: Calibration) -> str:
    """Return what trees, regression and biases add to the logits: (B, 6)."""
    of_transformer, of_stack = member_scales(calibration)
    of_trees, of_regression = of_stack * stack.tree_share, of_stack * (1 - stack.tree_share)
    features = PrefixFeaturesGraph(graph, stack.item_features)
    columns = features.columns()  # (B, F)
    forests = graph("TreeEnsembleRegressor", columns, domain=TREES, **_trees(stack, of_trees))
    weights = stack.regression.weights * of_regression
    plain = np.zeros((len(FEATURE_NAMES), OUTPUTS))
    plain[np.delete(np.arange(len(FEATURE_NAMES)), ACTION_CODE_COLUMNS)] = weights[: len(FEATURE_NAMES) - RECENT_EVENTS]
    bias = stack.regression.bias * of_regression + class_biases(calibration)
    bias = bias + of_transformer * calibration.prior_logits  # its heads have lost that: see `fold_in`
    total = graph("Add", forests, graph("Gemm", columns, _single(plain), _single(bias)))
    kinds = weights[len(FEATURE_NAMES) - RECENT_EVENTS :].reshape(RECENT_EVENTS, len(ACTIONS), OUTPUTS)
    for table, code in zip(kinds, features.newest_actions(), strict=True):
        total = graph("Add", total, graph("Gather", _single(table), code))
    return total


def _trees(stack: Stack, scales: npt.NDArray[np.floating[Any]]) -> Mapping[str, Any]:
    """Return the attributes of one ensemble with a target for each logit."""
    nodes, tree = _Nodes(), 0
    forests = ((stack.trees.next_action, range(len(NEXT_ACTIONS))), (stack.trees.purchase, [len(NEXT_ACTIONS)]))
    for forest, targets in forests:
        for place, found in enumerate(forest.dump_model()["tree_info"]):
            target = targets[place % len(targets)]
            _add(nodes, found["tree_structure"], tree, target, float(scales[target]))
            tree += 1
    return nodes.columns | {"n_targets": OUTPUTS, "aggregate_function": "SUM", "post_transform": "NONE"}


def _add(nodes: _Nodes, root: Mapping[str, Any], tree: int, target: int, scale: float) -> None:
    """Add a tree, parents before children; a leaf's value is multiplied by `scale`."""
    numbered: list[Mapping[str, Any]] = [root]
    for number, node in enumerate(numbered):  # grows as it goes
        is_leaf = "leaf_value" in node
        left = right = 0
        if not is_leaf:
            left, right = len(numbered), len(numbered) + 1
            numbered += [node["left_child"], node["right_child"]]
        nodes.add(
            nodes_treeids=tree,
            nodes_nodeids=number,
            nodes_featureids=0 if is_leaf else node["split_feature"],
            nodes_values=0.0 if is_leaf else _rounded_down(node["threshold"]),
            nodes_modes="LEAF" if is_leaf else "BRANCH_LEQ",
            nodes_truenodeids=left,
            nodes_falsenodeids=right,
            nodes_missing_value_tracks_true=0,
        )
        if is_leaf:
            nodes.add(
                target_treeids=tree, target_nodeids=number, target_ids=target, target_weights=node["leaf_value"] * scale
            )


def _rounded_down(threshold: float) -> float:
    """Return the largest float32 that is at most a threshold."""
    nearest = np.float32(threshold)
    return float(nearest if float(nearest) <= threshold else np.nextafter(nearest, np.float32(-np.inf)))


def _single(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    return values.astype(np.float32)
