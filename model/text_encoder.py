"""Text encoder: a pre-trained language model in a local folder turns texts into vectors, without any download."""

# pyright: standard
# transformers does not type the result of a model.

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
from tokenizers import Tokenizer

from clickscore.model.array_types import Float32Array, Longs
from clickscore.model.errors import TrainingError

LastLayer = Callable[[Longs, Longs], Float32Array]
"""Computes the last hidden layer (texts, tokens, D) of token ids and the attention mask, (texts, tokens) each."""

MAX_TOKENS = 128
"""Maximum number of tokens of a text: a title, a category and a brand have about 30."""
BATCH_TEXTS = 64
"""Texts in a forward pass."""
GRAPH_FILES = ("model.onnx", "onnx/model.onnx")
"""Paths of the graph in a folder of Hugging Face."""
GRAPH_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
"""Possible inputs of a BERT-like graph."""


class TextEncoder:
    """Sentence encoder: the mean of the last layer over the real tokens, at unit length (Sentence-BERT, EMNLP 2019)."""

    def __init__(self, name: str, tokenizer: Tokenizer, last_layer: LastLayer, fingerprint: str) -> None:
        self.name = name
        self._tokenizer = tokenizer
        self._last_layer = last_layer
        self.fingerprint = fingerprint
        """SHA-256 of the model's files, in hex."""

    def vectors(self, texts: Sequence[str], on_batch: Callable[[int], None]) -> Float32Array:
        """Return a vector for each text: (texts, D).

        Args:
            texts: At least one text.
            on_batch: Called after each batch with the number of texts in the batch.
        """
        tokenized = self._tokenizer.encode_batch(list(texts))
        lengths = np.array([len(text.ids) for text in tokenized])
        order = np.argsort(lengths, kind="stable")  # texts of like length share a batch: little padding
        parts: list[Float32Array] = []
        for start in range(0, len(order), BATCH_TEXTS):
            batch = order[start : start + BATCH_TEXTS]
            ids = np.zeros((len(batch), max(1, lengths[batch].max())), dtype=np.int64)  # (batch, tokens)
            for row, text in zip(ids, batch.tolist(), strict=True):
                row[: lengths[text]] = tokenized[text].ids
            mask = (np.arange(ids.shape[1]) < lengths[batch, None]).astype(np.int64)  # (batch, tokens)
            total = (self._last_layer(ids, mask) * mask[:, :, None]).sum(axis=1)  # (batch, D): as the mean, but longer
            parts.append(total / np.linalg.norm(total, axis=1, keepdims=True).clip(min=1e-12))  # 1e-12: no 0 / 0
            on_batch(len(batch))
        vectors = np.concatenate(parts)
        position = np.empty_like(order)  # inverse of `order`
        position[order] = np.arange(len(order))
        return vectors[position].astype(np.float32)


def open_text_encoder(folder: Path) -> TextEncoder:
    """Return the language model of a folder in Hugging Face's layout.

    The folder has `tokenizer.json` and either `model.onnx`, run by ONNX Runtime, or `config.json` with
    `*.safetensors`, run by transformers.

    Raises:
        TrainingError: The folder has no model, or the model cannot be read.
    """
    tokens = folder / "tokenizer.json"
    graph = next((folder / name for name in GRAPH_FILES if (folder / name).is_file()), None)
    weights = sorted(folder.glob("*.safetensors"))
    config = folder / "config.json"
    if not tokens.is_file() or not (graph or (weights and config.is_file())):
        message = (
            f"{folder} has no language model: it needs tokenizer.json, and either model.onnx, or config.json with "
            "model.safetensors"
        )
        raise TrainingError(message)
    try:
        tokenizer = Tokenizer.from_file(str(tokens))
        tokenizer.no_padding()
        tokenizer.enable_truncation(MAX_TOKENS)
        last_layer = _open_graph(graph) if graph else _open_weights(folder)
    except TrainingError:
        raise
    except Exception as exc:
        message = f"the language model in {folder} cannot be read: {exc}"
        raise TrainingError(message) from exc
    files = [tokens, graph] if graph else [tokens, config, *weights]
    return TextEncoder(folder.resolve().name, tokenizer, last_layer, _hash_files(files))


def _open_graph(path: Path) -> LastLayer:
    graph = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [node.name for node in graph.get_inputs()]
    output = graph.get_outputs()[0]
    if not {"input_ids", "attention_mask"} <= set(names) <= set(GRAPH_INPUTS) or len(output.shape) != 3:
        message = (
            f"{path} is not a text encoder: its inputs are {names}, and its first output has the shape {output.shape}"
        )
        raise TrainingError(message)

    def compute_last_layer(ids: Longs, mask: Longs) -> Float32Array:
        values = dict(zip(GRAPH_INPUTS, (ids, mask, np.zeros_like(ids)), strict=True))
        return np.asarray(graph.run([output.name], {name: values[name] for name in names})[0])

    return compute_last_layer


def _open_weights(folder: Path) -> LastLayer:
    import torch  # noqa: PLC0415 (a graph needs neither)
    from transformers import AutoModel  # noqa: PLC0415

    model = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True, dtype=torch.float32).eval()

    @torch.inference_mode()
    def compute_last_layer(ids: Longs, mask: Longs) -> Float32Array:
        return model(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask)).last_hidden_state.numpy()

    return compute_last_layer


def _hash_files(files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
