"""TensorFlow export: train a Keras model on TensorFlow, and write it with tf2onnx, TensorFlow's converter to ONNX.

A program of its own, because Keras takes one backend per process, and the other tests take torch:

    python tests/export/tensorflow_export.py FILE ITEMS LENGTH
"""

import os
import sys

os.environ["KERAS_BACKEND"] = "tensorflow"  # before Keras is imported
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
import tf2onnx
from keras import layers, ops

STEPS = 150
BATCH = 64


class LastVector(layers.Layer):
    """The vector of a session's last event."""

    def call(self, vectors, lengths):
        """Return the vectors at the last event: (batch, length, dim), (batch,) -> (batch, dim)."""
        position = ops.cumsum(ops.ones_like(vectors[:, :, :1]), axis=1)
        is_last = ops.equal(position, ops.cast(ops.reshape(lengths, (-1, 1, 1)), vectors.dtype))
        return ops.sum(ops.where(is_last, vectors, 0.0), axis=1)


def sessions(items: int, length: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rows (count, length) with 0 after the end, lengths (count,), and columns of the next items (count,)."""
    rng = np.random.default_rng(1)
    lengths, first = rng.integers(1, length + 1, count), rng.integers(0, items, count)
    columns = (first[:, None] + np.arange(length + 1)) % items
    rows = np.where(np.arange(length) < lengths[:, None], columns[:, :length] + 1, 0)
    return rows.astype(np.int32), lengths.astype(np.int32), columns[np.arange(count), lengths]


def main(path: str, items: int, length: int) -> None:
    """Train and export the model; TensorFlow's habits stay: int32 inputs, and a purchase of shape (batch, 1)."""
    keras.utils.set_random_seed(0)
    rows, counts, following = sessions(items, length, BATCH * STEPS)
    inputs = {
        name: keras.Input(shape, dtype="int32", name=name) for name, shape in (("items", (None,)), ("lengths", ()))
    }
    last = LastVector()(layers.Embedding(items + 1, 32)(inputs["items"]), inputs["lengths"])
    # tf2onnx knows no Erfc, the operator of an exact gelu.
    scores = layers.Dense(items)(layers.Dense(64, activation="relu")(last))
    learner = keras.Model(inputs, scores)
    learner.compile(keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    learner.fit({"items": rows, "lengths": counts}, following, batch_size=BATCH, verbose=0)
    actions, purchase = layers.Dense(5, activation="softmax")(last), layers.Dense(1, activation="sigmoid")(last)
    model = keras.Model(inputs, [scores, actions, purchase])

    @tf.function(
        input_signature=[
            tf.TensorSpec((None, None), tf.int32, name="items"),
            tf.TensorSpec((None,), tf.int32, name="lengths"),
        ]
    )
    def serve(items, lengths):
        values = model({"items": items, "lengths": lengths})
        return dict(zip(("item_scores", "action_probabilities", "purchase"), values, strict=True))

    tf2onnx.convert.from_function(serve, input_signature=serve.input_signature, opset=17, output_path=path)
    print(f"tensorflow {tf.__version__}")  # noqa: T201 (the answer to the caller)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
