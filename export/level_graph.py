"""Level graph: nodes at the end of a bundle's graph that correct the level of its probabilities (`model.level`).

A head's logits z become s z + c. As probabilities: p^s exp(c), divided by the sum over the classes. So the correction
needs the outputs of a graph alone, whatever framework the graph comes from. Power, product and sum are computed entry
by entry, and LpNormalization row by row, so the bits of a session do not depend on its batch.

A refitted head (`model.refit`) gets its probability from the nodes of another stack instead. The old nodes stay in the
file, so that a later correction can start from them; ONNX Runtime leaves them out, as no output needs them.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper

from clickscore.export.graph_builder import GraphBuilder
from clickscore.export.stack_graph import add_stack
from clickscore.export.to_onnx import add_action_probabilities, add_purchase
from clickscore.model.calibration import Affine, Calibration
from clickscore.model.level import is_unchanged
from clickscore.model.refit import ACTION_HEAD, PURCHASE_HEAD, Refit
from clickscore.schemas.manifest import NEXT_ACTIONS, CalibrationReport

PREFIX = "level/"
"""Beginning of the names of all nodes, constants and tensors of a correction."""


def add_level(model: bytes, correction: Calibration) -> bytes:
    """Return the graph with corrected probabilities.

    Args:
        model: ONNX file without a correction.
        correction: Scales and biases of both heads.
    """
    proto = onnx.load_model_from_string(model)
    if not is_unchanged(correction.next_action):
        probabilities = _move_output(proto.graph, ACTION_HEAD)
        weighted = _weigh(proto.graph, probabilities, correction.next_action, correction.next_action.bias)
        _add(proto.graph, "LpNormalization", [weighted], ACTION_HEAD, axis=1, p=1)
    if not is_unchanged(correction.purchase):
        purchase = _move_output(proto.graph, PURCHASE_HEAD)
        rest = _add(proto.graph, "Sub", [_constant(proto.graph, np.float32(1)), purchase])
        weighted = _weigh(proto.graph, purchase, correction.purchase, correction.purchase.bias[0])
        weighted_rest = _weigh(proto.graph, rest, correction.purchase, 0.0)
        _add(proto.graph, "Div", [weighted, _add(proto.graph, "Add", [weighted, weighted_rest])], PURCHASE_HEAD)
    return proto.SerializeToString()


def add_refit(model: bytes, refit: Refit) -> bytes:
    """Return the graph with the probabilities of the stack in place of those of the replaced heads.

    Args:
        model: ONNX file of a graph with a stack, whose replaced heads have no correction.
        refit: Stack of the recent sessions, and the heads that it replaces.
    """
    proto, builder = onnx.load_model_from_string(model), GraphBuilder(PREFIX + "refit_")
    heads = refit.report.heads
    scales = {name: float(name in heads) for name in (ACTION_HEAD, PURCHASE_HEAD)}
    blend = Calibration(
        next_action=Affine(scales=(0.0, scales[ACTION_HEAD]), bias=(0.0,) * len(NEXT_ACTIONS)),
        purchase=Affine(scales=(0.0, scales[PURCHASE_HEAD]), bias=(0.0,)),
        report=CalibrationReport(method="", events=0, before={}, after={}),
    )
    logits = add_stack(builder, refit.stack, blend)
    for name, add_output in ((ACTION_HEAD, add_action_probabilities), (PURCHASE_HEAD, add_purchase)):
        if name in heads:
            _move_output(proto.graph, name)
            add_output(builder, logits)
    builder.append_to(proto.graph)
    return proto.SerializeToString()


def remove_level(model: bytes) -> bytes:
    """Return the graph without the correction of an earlier `add_level`; other graphs stay as they are."""
    proto = onnx.load_model_from_string(model)
    graph = proto.graph
    own = [node for node in graph.node if node.name.startswith(PREFIX)]
    if not own:
        return model
    for node in own:
        graph.node.remove(node)
    for constant in [constant for constant in graph.initializer if constant.name.startswith(PREFIX)]:
        graph.initializer.remove(constant)
    for name in (ACTION_HEAD, PURCHASE_HEAD):
        _rename(graph, PREFIX + name, name)
    return proto.SerializeToString()


def _move_output(graph: onnx.GraphProto, name: str) -> str:
    """Rename the tensor of an output, and return its new name; a node of the correction takes the old name."""
    _rename(graph, name, PREFIX + name)
    return PREFIX + name


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == old:
                    names[index] = new


def _weigh(graph: onnx.GraphProto, probabilities: str, affine: Affine, bias: float | Sequence[float]) -> str:
    """Return the name of p^scale * exp(bias).

    Args:
        graph: Graph to extend.
        probabilities: Name of p: (batch, classes) or (batch,).
        affine: Gives the scale.
        bias: Bias of each class.
    """
    (scale,) = affine.scales
    powers = probabilities
    if scale != 1:
        powers = _add(graph, "Pow", [probabilities, _constant(graph, np.float32(scale))])
    return _add(graph, "Mul", [powers, _constant(graph, np.exp(bias).astype(np.float32))])


def _constant(graph: onnx.GraphProto, value: np.ndarray | np.generic) -> str:
    name = f"{PREFIX}constant_{len(graph.initializer)}"
    graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    return name


def _add(graph: onnx.GraphProto, operator: str, inputs: Sequence[str], output: str = "", **attributes: Any) -> str:  # noqa: ANN401 (ONNX's)
    """Add a node and return the name of its output."""
    outputs = [output or f"{PREFIX}{operator}_{len(graph.node)}"]
    node: NodeProto = helper.make_node(operator, inputs, outputs, **attributes)
    node.name = f"{PREFIX}{operator}_{len(graph.node)}"
    graph.node.append(node)
    return node.output[0]
