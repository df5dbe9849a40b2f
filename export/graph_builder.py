"""Graph builder: write an ONNX graph node by node, where adding an operator is a function call."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import FunctionProto, GraphProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from clickscore.schemas.manifest import EXPLAINED, INPUTS, NEXT_ACTIONS, OUTPUTS, REASONS

OPSET = 23  # the first operator set with Attention
IR_VERSION = 11  # the file format that was released with operator set 23

TREES, TREES_OPSET = "ai.onnx.ml", 3  # the operator set with TreeEnsembleRegressor

FUNCTIONS, FUNCTIONS_VERSION = "clickscore", 1
"""Operator set of the functions that a graph defines: a runtime may have a faster operator of the same name."""

Input = str | npt.NDArray[Any] | np.generic
"""Input of a node: the name of another node's output, or a value, which becomes a constant."""

_ELEMENT_TYPES = {"int64": TensorProto.INT64, "float32": TensorProto.FLOAT}


class GraphBuilder:
    """An unfinished ONNX graph: call it with an operator and inputs, and get the name of the node's output."""

    def __init__(self, prefix: str = "") -> None:
        """Begin an empty graph.

        Args:
            prefix: Beginning of all generated names.
        """
        self._prefix = prefix
        self._nodes: list[NodeProto] = []
        self._node_count = 0  # nodes inside branches included, so that no generated name repeats
        self._constants: list[TensorProto] = []
        self._default_inputs: list[ValueInfoProto] = []
        self._functions: list[FunctionProto] = []

    def __call__(self, operator: str, *inputs: Input, name: str = "", **attributes: Any) -> str:  # noqa: ANN401 (ONNX's)
        """Add a node with one output and return the output's name.

        Args:
            operator: Name of an ONNX operator, from the default set unless the attributes name a `domain`.
            inputs: Inputs in the operator's order.
            name: Name of the output; a new name is made where the caller gives no name.
            attributes: Attributes of the operator.
        """
        name = name or f"{self._prefix}{operator}_{self._node_count}"
        (output,) = self._add_node(operator, inputs, [name], attributes)
        return output

    def top_k(self, values: str, count: int | str, *, largest: bool = True) -> tuple[str, str]:
        """Add a TopK over the last axis and return the names of the values and of their indices.

        Equal values come in order of index, as the ONNX specification promises.

        Args:
            values: Tensor (..., n).
            count: Number of values to keep, or the name of a tensor (1,) that holds the number.
            largest: Keep the largest values; False keeps the smallest.
        """
        names = [f"{self._prefix}TopK_{self._node_count}_{part}" for part in ("values", "indices")]
        values, indices = self._add_node(
            "TopK", [values, count if isinstance(count, str) else np.array([count])], names, {"largest": int(largest)}
        )
        return values, indices

    def add_constant(self, value: npt.NDArray[Any] | np.generic, name: str = "") -> str:
        """Add a constant and return its name."""
        name = name or f"{self._prefix}constant_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.asarray(value, order="C"), name))
        return name

    def build_branch(self, build: Callable[[], str | Sequence[str]]) -> GraphProto:
        """Return a subgraph for an If operator; its nodes may read every node that precedes the If.

        Args:
            build: Adds the subgraph's nodes to this builder and returns the names of the subgraph's outputs.
        """
        outer, self._nodes = self._nodes, []
        names = build()
        outputs = [helper.make_empty_tensor_value_info(name) for name in ([names] if isinstance(names, str) else names)]
        inner, self._nodes = self._nodes, outer
        return helper.make_graph(inner, f"branch_{self._node_count}", [], outputs)

    def choose(
        self, condition: str, then: Callable[[], tuple[str, str]], otherwise: Callable[[], tuple[str, str]]
    ) -> tuple[str, str]:
        """Add an If with two outputs and return their names.

        Args:
            condition: Name of the condition, a tensor with one element.
            then: Adds the nodes where the condition is true, and returns the names of the outputs.
            otherwise: Adds the nodes where the condition is false, and returns the names of the outputs.
        """
        branches = {"then_branch": self.build_branch(then), "else_branch": self.build_branch(otherwise)}
        names = [f"If_{self._node_count}_{part}" for part in ("first", "second")]
        first, second = self._add_node("If", [condition], names, branches)
        return first, second

    def call_function(
        self,
        function: str,
        inputs: Mapping[str, Input],
        build: Callable[["GraphBuilder"], Sequence[str]],
        names: Sequence[str],
    ) -> None:
        """Define a function of the graph and call it.

        Args:
            function: Name of the function in the operator set `clickscore`.
            inputs: Input of the call for each name of a parameter.
            build: Adds the function's nodes to another builder, where they read the parameters by their names, and
                returns the names of the outputs.
            names: Names of the outputs of the call.
        """
        inside = GraphBuilder()
        outputs = build(inside)
        constants = [helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in inside._constants]
        opsets = [helper.make_opsetid("", OPSET)]
        self._functions.append(
            helper.make_function(FUNCTIONS, function, list(inputs), outputs, [*constants, *inside._nodes], opsets)
        )
        self._add_node(function, list(inputs.values()), list(names), {"domain": FUNCTIONS})

    def add_default_input(self, name: str, value: npt.NDArray[Any]) -> str:
        """Add an optional input, which has this value where the caller does not feed it, and return its name."""
        self._default_inputs.append(_declare_tensor(name, str(value.dtype), value.shape))
        return self.add_constant(value, name)

    def append_to(self, graph: GraphProto) -> None:
        """Append the nodes and the constants to a finished graph, each node with a name that begins with the prefix."""
        for index, node in enumerate(self._nodes):
            node.name = f"{self._prefix}{node.op_type}_{index}"
        graph.node.extend(self._nodes)
        graph.initializer.extend(self._constants)

    def serialize(self, candidates: int) -> bytes:
        """Return the model file, with the inputs and outputs of `schemas.manifest`.

        Args:
            candidates: Number of candidates, the second axis of `rows` and `scores`.
        """
        used = {name for node in self._nodes for name in node.input}
        inputs = [
            _declare_tensor(name, dtype, ("batch", "length")[:axes])
            for name, (dtype, axes) in INPUTS.items()
            if name in used
        ]
        columns = {"rows": candidates, "scores": candidates, "action_probabilities": len(NEXT_ACTIONS)}
        outputs = [
            _declare_tensor(name, dtype, ("batch", columns.get(name, 0))[:axes])
            for name, (dtype, axes) in OUTPUTS.items()
        ]
        if self._default_inputs:
            outputs.append(_declare_tensor(REASONS, "float32", ("batch", EXPLAINED, "length")))
        graph = helper.make_graph(
            self._nodes, "session_transformer", [*inputs, *self._default_inputs], outputs, self._constants
        )
        opsets = [helper.make_opsetid("", OPSET)]
        if any(node.domain == TREES for node in self._nodes):
            opsets.append(helper.make_opsetid(TREES, TREES_OPSET))
        if self._functions:
            opsets.append(helper.make_opsetid(FUNCTIONS, FUNCTIONS_VERSION))
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, functions=self._functions)
        return model.SerializeToString()

    def _add_node(
        self, operator: str, inputs: Sequence[Input], outputs: list[str], attributes: Mapping[str, Any]
    ) -> list[str]:
        names = [value if isinstance(value, str) else self.add_constant(value) for value in inputs]
        self._nodes.append(helper.make_node(operator, names, outputs, **attributes))
        self._node_count += 1
        return outputs


def _declare_tensor(name: str, dtype: str, shape: tuple[str | int, ...]) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, _ELEMENT_TYPES[dtype], shape)
