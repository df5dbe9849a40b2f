"""Graph: an ONNX graph in the making, where an operator is a call."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import GraphProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from clickscore.schemas.manifest import EXPLAINED, INPUTS, NEXT_ACTIONS, OUTPUTS, REASONS

OPSET = 23  # the first with Attention
IR_VERSION = 11  # what that opset came with

TREES, TREES_OPSET = "ai.onnx.ml", 3

Input = str | npt.NDArray[Any] | np.generic
"""Of a node: the name of what another one made, or a value, which becomes a constant."""

_ELEMENTS = {"int64": TensorProto.INT64, "float32": TensorProto.FLOAT}


class GraphBuilder:
    """A graph in the making: call it with an operator and its inputs to get the name of what comes out."""

    def __init__(self) -> None:
        self._nodes: list[NodeProto] = []
        self._made = 0
        self._constants: list[TensorProto] = []
        self._defaults: list[ValueInfoProto] = []

    def __call__(self, operator: str, *inputs: Input, name: str = "", **attributes: Any) -> str:  # noqa: ANN401 (ONNX's)
        """Add a node, of ONNX's default set where no `domain` is named; its output gets a new name if none is given."""
        (output,) = self._node(operator, inputs, [name or f"{operator}_{self._made}"], attributes)
        return output

    def top_k(self, values: str, count: int | str, *, largest: bool = True) -> tuple[str, str]:
        """Add a TopK of the last axis: the best values and their indices, equal values in order of index.

        That order is ONNX's own promise. A count may be the name of a tensor (1,).
        """
        names = [f"TopK_{self._made}_{part}" for part in ("values", "indices")]
        values, indices = self._node(
            "TopK", [values, count if isinstance(count, str) else np.array([count])], names, {"largest": int(largest)}
        )
        return values, indices

    def constant(self, value: npt.NDArray[Any] | np.generic, name: str = "") -> str:
        """Add a constant and return its name."""
        name = name or f"constant_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.asarray(value, order="C"), name))
        return name

    def branch(self, build: Callable[[], str]) -> GraphProto:
        """Return the nodes that a function adds as a graph of their own, for an If, with what it returns as output.

        They may read whatever stands before it.
        """
        before, self._nodes = self._nodes, []
        output = helper.make_empty_tensor_value_info(build())
        inside, self._nodes = self._nodes, before
        return helper.make_graph(inside, f"branch_{self._made}", [], [output])

    def default(self, name: str, value: npt.NDArray[Any]) -> str:
        """Add an input that has this value where it is not fed, and return its name."""
        self._defaults.append(_tensor(name, str(value.dtype), value.shape))
        return self.constant(value, name)

    def serialized(self, candidates: int) -> bytes:
        """Return the model file, with the inputs and outputs of `schemas.manifest`."""
        read = {name for node in self._nodes for name in node.input}
        inputs = [
            _tensor(name, dtype, ("batch", "length")[:axes]) for name, (dtype, axes) in INPUTS.items() if name in read
        ]
        columns = {"rows": candidates, "scores": candidates, "action_probabilities": len(NEXT_ACTIONS)}
        outputs = [
            _tensor(name, dtype, ("batch", columns.get(name, 0))[:axes]) for name, (dtype, axes) in OUTPUTS.items()
        ]
        if self._defaults:
            outputs.append(_tensor(REASONS, "float32", ("batch", EXPLAINED, "length")))
        graph = helper.make_graph(
            self._nodes, "session_transformer", [*inputs, *self._defaults], outputs, self._constants
        )
        opsets = [helper.make_opsetid("", OPSET)]
        if any(node.domain == TREES for node in self._nodes):
            opsets.append(helper.make_opsetid(TREES, TREES_OPSET))
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION).SerializeToString()

    def _node(
        self, operator: str, inputs: Sequence[Input], outputs: list[str], attributes: Mapping[str, Any]
    ) -> list[str]:
        names = [given if isinstance(given, str) else self.constant(given) for given in inputs]
        self._nodes.append(helper.make_node(operator, names, outputs, **attributes))
        self._made += 1
        return outputs


def _tensor(name: str, dtype: str, shape: tuple[str | int, ...]) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, _ELEMENTS[dtype], shape)
