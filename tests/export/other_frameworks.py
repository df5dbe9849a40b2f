"""Foreign: small models of other frameworks, trained on sessions in which item n + 1 follows item n."""

import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("KERAS_BACKEND", "torch")  # before Keras is imported; TensorFlow is no dependency of ours

import keras
import numpy as np
import onnx
import pytest
import torch
import transformers
from keras import layers, ops
from transformers import GPT2Config, GPT2Model

from tests.export import foreign

ITEMS = tuple(f"item-{number}" for number in range(1, 41))
LENGTH = 6
STEPS = 150


class Foreign(NamedTuple):
    """An exported graph as a framework leaves it."""

    model: bytes
    names: dict[str, str]
    """What its tensors are called, and what in the bundle contract."""
    framework: str


def sessions(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rows (count, LENGTH) with 0 after the end, lengths (count,), and columns of the items that follow."""
    drawn = np.random.default_rng(seed)
    lengths, first = drawn.integers(1, LENGTH + 1, count), drawn.integers(0, len(ITEMS), count)
    columns = (first[:, None] + np.arange(LENGTH + 1)) % len(ITEMS)
    rows = np.where(np.arange(LENGTH) < lengths[:, None], columns[:, :LENGTH] + 1, 0)
    return rows, lengths, columns[np.arange(count), lengths]


class _Last(layers.Layer):
    """The vector of a session's last event."""

    def call(self, vectors, lengths):
        position = ops.cumsum(ops.ones_like(vectors[:, :, :1]), axis=1)
        is_last = ops.equal(position, ops.cast(ops.reshape(lengths, (-1, 1, 1)), vectors.dtype))
        return ops.sum(ops.where(is_last, vectors, 0.0), axis=1)


def keras_graph() -> Foreign:
    """Return a Keras model of the last item, as `model.export(format="onnx")` writes it."""
    keras.utils.set_random_seed(0)
    items, lengths = keras.Input((None,), dtype="int64", name="items"), keras.Input((), dtype="int64", name="lengths")
    last = _Last()(layers.Embedding(len(ITEMS) + 1, 32)(items), lengths)
    scores = layers.Dense(len(ITEMS))(layers.Dense(64, activation="gelu")(last))
    outputs = {
        "item_scores": scores,
        "action_probabilities": layers.Dense(5, activation="softmax")(last),
        "purchase": layers.Dense(1, activation="sigmoid")(last)[:, 0],
    }
    learner = keras.Model({"items": items, "lengths": lengths}, scores)
    learner.compile(keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    rows, lengths_, follow = sessions(64 * STEPS, seed=1)
    learner.fit({"items": rows, "lengths": lengths_}, follow, batch_size=64, verbose=0)
    model = keras.Model({"items": items, "lengths": lengths}, outputs)
    model({"items": rows[:2], "lengths": lengths_[:2]})  # Keras exports what has been called
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        model.export(str(file), format="onnx", verbose=False)
        exported = file.read_bytes()
    exported_outputs = outputs_of(exported)
    return Foreign(exported, dict(zip(exported_outputs, sorted(outputs), strict=True)), f"keras {keras.__version__}")


class _Answers(torch.nn.Module):
    """A GPT-2 of one layer over item rows, with the three heads."""

    def __init__(self) -> None:
        super().__init__()
        shape = GPT2Config(
            vocab_size=len(ITEMS) + 1, n_positions=LENGTH, n_embd=32, n_layer=1, n_head=2, use_cache=False
        )
        self.body = GPT2Model._from_config(shape, attn_implementation="eager")
        self.next_item = torch.nn.Linear(32, len(ITEMS))
        self.next_action, self.purchase = torch.nn.Linear(32, 5), torch.nn.Linear(32, 1)

    def forward(self, items, lengths):
        hidden = self.body(input_ids=items, attention_mask=(items > 0).long()).last_hidden_state
        last = hidden.gather(1, (lengths - 1)[:, None, None].expand(-1, 1, hidden.shape[2]))[:, 0]
        return self.next_item(last), self.next_action(last).softmax(1), self.purchase(last).sigmoid()[:, 0]


def transformers_graph() -> Foreign:
    """Return a Hugging Face model as `torch.onnx.export` writes it."""
    torch.manual_seed(0)
    model = _Answers()
    optimizer = torch.optim.Adam(model.parameters(), 0.005)
    rows, lengths, follow = (torch.as_tensor(part) for part in sessions(64 * STEPS, seed=1))
    for batch in torch.arange(64 * STEPS).split(64):
        loss = torch.nn.functional.cross_entropy(model(rows[batch], lengths[batch])[0], follow[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    names = ("item_scores", "action_probabilities", "purchase")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        torch.onnx.export(
            model.eval(),
            (rows[:2], lengths[:2]),
            file,
            input_names=["input_ids", "sizes"],
            output_names=list(names),
            dynamic_axes={"input_ids": {0: "n", 1: "t"}, "sizes": {0: "n"}} | {name: {0: "n"} for name in names},
            dynamo=False,
            opset_version=18,
        )
        exported = file.read_bytes()
    return Foreign(exported, {"input_ids": "items", "sizes": "lengths"}, f"transformers {transformers.__version__}")


def tensorflow_graph() -> Foreign:
    """Return a Keras model on TensorFlow as tf2onnx writes it; skip the test without the extra `tensorflow`."""
    if missing := [name for name in ("tensorflow", "tf2onnx") if importlib.util.find_spec(name) is None]:
        pytest.skip(f"{' and '.join(missing)} cannot be imported: pip install '.[tensorflow]'")
    program = Path(__file__).with_name("tensorflow_export.py")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        words = [sys.executable, str(program), str(file), str(len(ITEMS)), str(LENGTH)]
        done = subprocess.run(words, check=True, capture_output=True, text=True, timeout=300)
        return Foreign(file.read_bytes(), {}, done.stdout.splitlines()[-1])


def next_item_graph() -> Foreign:
    """Return a graph with the scores of the next item alone."""
    graph = foreign.ForeignGraph(items=len(ITEMS), purchase_axes=0, action_columns=0)
    return Foreign(foreign.build(graph).SerializeToString(), {}, "onnx")


def outputs_of(model: bytes) -> list[str]:
    """Return the names of a graph's outputs, in order."""
    return [value.name for value in onnx.load_model_from_string(model).graph.output]
