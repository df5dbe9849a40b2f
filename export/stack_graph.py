"""Stack graph: the nodes of LightGBM trees and a logistic regression on prefix features, blended with the heads.

A forest becomes one TreeEnsembleRegressor, in which a value goes left where it is at most a node's threshold.
LightGBM's thresholds are float64 and the features are float32. So each threshold is rounded down to a float32, which
leaves the decision for every float32 value unchanged.

Shapes: B sessions, F prefix features.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from clickscore.export.graph_builder import TREES, GraphBuilder
from clickscore.export.prefix_features_graph import PrefixFeaturesGraph
from clickscore.model.calibration import Calibration, class_biases, member_scales
from clickscore.model.prefix_features import FEATURE_NAMES, LINEAR_FEATURE_NAMES, RECENT_EVENTS
from clickscore.model.stack import ACTION_CODE_COLUMNS, Stack
from clickscore.schemas.events import ACTIONS
from clickscore.schemas.manifest import NEXT_ACTIONS

LOGITS = len(NEXT_ACTIONS) + 1  # the next actions, then the purchase


@dataclasses.dataclass
class _TreeAttributes:
    """Attributes of a TreeEnsembleRegressor: parallel lists, with an entry for each node or leaf."""

    columns: dict[str, list[Any]] = dataclasses.field(default_factory=dict[str, list[Any]])

    def append(self, **values: object) -> None:
        for name, value in values.items():
            self.columns.setdefault(name, []).append(value)


def add_stack(graph: GraphBuilder, stack: Stack, calibration: Calibration) -> str:
    """Add a stack's nodes and return the stack's share of the logits: (B, 6).

    logits = scale_stack * (share * trees + (1 - share) * regression) + class biases + scale_transformer * prior logits

    Args:
        graph: Builder to add nodes to.
        stack: Trees and regression.
        calibration: Scales of the members of the blend, class biases and prior logits.
    """
    transformer_scale, stack_scale = member_scales(calibration)
    tree_scale, regression_scale = stack_scale * stack.tree_share, stack_scale * (1 - stack.tree_share)
    features = PrefixFeaturesGraph(graph, stack.item_features)
    columns = features.columns()  # (B, F)
    trees = graph("TreeEnsembleRegressor", columns, domain=TREES, **_tree_attributes(stack, tree_scale))
    weights = stack.regression.weights * regression_scale
    # The regression one-hot encodes the recent action codes: numeric columns first, then a table for each code.
    numeric = len(LINEAR_FEATURE_NAMES) - RECENT_EVENTS
    dense = np.zeros((len(FEATURE_NAMES), LOGITS))
    dense[np.delete(np.arange(len(LINEAR_FEATURE_NAMES)), ACTION_CODE_COLUMNS)] = weights[:numeric]
    bias = stack.regression.bias * regression_scale + class_biases(calibration)
    bias = bias + transformer_scale * calibration.prior_logits  # `fold_in` has taken them out of the heads
    total = graph("Add", trees, graph("Gemm", columns, _to_float32(dense), _to_float32(bias)))
    tables = weights[numeric:].reshape(RECENT_EVENTS, len(ACTIONS), LOGITS)
    for table, code in zip(tables, features.recent_actions(), strict=True):
        total = graph("Add", total, graph("Gather", _to_float32(table), code))
    return total


def _tree_attributes(stack: Stack, scales: npt.NDArray[np.floating[Any]]) -> Mapping[str, Any]:
    """Return the attributes of one ensemble with a target for each logit."""
    attributes, number = _TreeAttributes(), 0
    forests = ((stack.trees.next_action, range(len(NEXT_ACTIONS))), (stack.trees.purchase, [len(NEXT_ACTIONS)]))
    served = [(forest, targets) for forest, targets in forests if scales[targets[0]] != 0]
    for forest, targets in served or forests:  # an ensemble without a tree is no valid node
        for index, tree in enumerate(forest.dump_model()["tree_info"]):
            target = targets[index % len(targets)]  # LightGBM lists the trees of a round class by class
            _append_tree(attributes, tree["tree_structure"], number, target, float(scales[target]))
            number += 1
    return attributes.columns | {"n_targets": LOGITS, "aggregate_function": "SUM", "post_transform": "NONE"}


def _append_tree(attributes: _TreeAttributes, root: Mapping[str, Any], tree: int, target: int, scale: float) -> None:
    """Append the nodes of a tree, parents before children.

    Args:
        attributes: Attributes of the ensemble.
        root: Root node from the dump of LightGBM.
        tree: Number of the tree in the ensemble.
        target: Index of the logit of the leaves.
        scale: Factor for the leaves' values.
    """
    numbered: list[Mapping[str, Any]] = [root]
    for number, node in enumerate(numbered):  # the loop appends children to the list
        is_leaf = "leaf_value" in node
        left_child = right_child = 0
        if not is_leaf:
            left_child, right_child = len(numbered), len(numbered) + 1
            numbered += [node["left_child"], node["right_child"]]
        attributes.append(
            nodes_treeids=tree,
            nodes_nodeids=number,
            nodes_featureids=0 if is_leaf else node["split_feature"],
            nodes_values=0.0 if is_leaf else _round_down(node["threshold"]),
            nodes_modes="LEAF" if is_leaf else "BRANCH_LEQ",
            nodes_truenodeids=left_child,
            nodes_falsenodeids=right_child,
            nodes_missing_value_tracks_true=0,
        )
        if is_leaf:
            attributes.append(
                target_treeids=tree, target_nodeids=number, target_ids=target, target_weights=node["leaf_value"] * scale
            )


def _round_down(threshold: float) -> float:
    """Return the largest float32 up to the threshold."""
    nearest = np.float32(threshold)
    return float(nearest if float(nearest) <= threshold else np.nextafter(nearest, np.float32(-np.inf)))


def _to_float32(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    return values.astype(np.float32)
