"""Encoder: texts as vectors, by a pre-trained language model in a local folder. Nothing is ever downloaded."""

# pyright: standard
# transformers leaves what a model returns untyped.

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from tokenizers import Tokenizer

from clickscore.model.errors import TrainingError
from clickscore.model.features import Float32Array

Longs = npt.NDArray[np.int64]
Hidden = Callable[[Longs, Longs], Float32Array]
"""Returns the last layer's vectors (texts, tokens, D) of token ids and the mask of real ones: (texts, tokens) each."""

MAX_TOKENS = 128
"""Of a text that are read, the first: a title, a category and a brand take some 30."""
BATCH = 64
GRAPH_FILES = ("model.onnx", "onnx/model.onnx")
"""Where folders of Hugging Face have the graph."""
GRAPH_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


class TextEncoder:
    """A language model as text in, vector out: the mean over its last layer's real tokens, at unit length."""

    def __init__(self, name: str, tokenizer: Tokenizer, hidden: Hidden, fingerprint: str) -> None:
        self.name = name
        self._tokenizer = tokenizer
        self._hidden = hidden
        self.fingerprint = fingerprint
        """SHA-256 of the files that it is made of, in hex."""

    def vectors(self, texts: Sequence[str], tell: Callable[[int], None]) -> Float32Array:
        """Return a vector each: (texts, D).

        Args:
            texts: At least one.
            tell: Called after each batch with how many texts that was.
        """
        read = self._tokenizer.encode_batch(list(texts))
        lengths = np.array([len(text.ids) for text in read])
        order = np.argsort(lengths, kind="stable")  # those of like length together: little padding
        parts: list[Float32Array] = []
        for start in range(0, len(order), BATCH):
            at = order[start : start + BATCH]
            ids = np.zeros((len(at), max(1, lengths[at].max())), dtype=np.int64)
            for row, text in zip(ids, at.tolist(), strict=True):
                row[: lengths[text]] = read[text].ids
            mask = (np.arange(ids.shape[1]) < lengths[at, None]).astype(np.int64)
            mean = (self._hidden(ids, mask) * mask[:, :, None]).sum(axis=1)  # the length is undone by the next line
            parts.append(mean / np.linalg.norm(mean, axis=1, keepdims=True).clip(min=1e-12))
            tell(len(at))
        vectors = np.concatenate(parts)
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        return vectors[back].astype(np.float32)


def open_text_encoder(folder: Path) -> TextEncoder:
    """Return the model of a folder as Hugging Face lays them out: `tokenizer.json`, and beside it a graph or weights.

    Where there is `model.onnx`, ONNX Runtime runs it; else transformers runs `config.json` with its `*.safetensors`.

    Raises:
        TrainingError: There is no model, or it cannot be read.
    """
    tokens = folder / "tokenizer.json"
    graph = next((folder / name for name in GRAPH_FILES if (folder / name).is_file()), None)
    weights = sorted(folder.glob("*.safetensors"))
    config = folder / "config.json"
    if not tokens.is_file() or not (graph or (weights and config.is_file())):
        message = (
            f"{folder} holds no language model: a folder has tokenizer.json, and beside it model.onnx, or config.json "
            "with model.safetensors"
        )
        raise TrainingError(message)
    try:
        tokenizer = Tokenizer.from_file(str(tokens))
        tokenizer.no_padding()
        tokenizer.enable_truncation(MAX_TOKENS)
        hidden = _of_graph(graph) if graph else _of_weights(folder)
    except TrainingError:
        raise
    except Exception as exc:
        message = f"the language model in {folder} cannot be read: {exc}"
        raise TrainingError(message) from exc
    return TextEncoder(
        folder.resolve().name, tokenizer, hidden, _fingerprint([tokens, graph] if graph else [tokens, config, *weights])
    )


def _of_graph(path: Path) -> Hidden:
    graph = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [given.name for given in graph.get_inputs()]
    output = graph.get_outputs()[0]
    if not {"input_ids", "attention_mask"} <= set(names) <= set(GRAPH_INPUTS) or len(output.shape) != 3:
        message = f"{path} is no encoder: it takes {names}, and its first output has the shape {output.shape}"
        raise TrainingError(message)

    def hidden(ids: Longs, mask: Longs) -> Float32Array:
        given = dict(zip(GRAPH_INPUTS, (ids, mask, np.zeros_like(ids)), strict=True))
        return np.asarray(graph.run([output.name], {name: given[name] for name in names})[0])

    return hidden


def _of_weights(folder: Path) -> Hidden:
    import torch  # noqa: PLC0415 (a graph needs neither)
    from transformers import AutoModel  # noqa: PLC0415

    model = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True, dtype=torch.float32).eval()

    @torch.inference_mode()
    def hidden(ids: Longs, mask: Longs) -> Float32Array:
        return model(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask)).last_hidden_state.numpy()

    return hidden


def _fingerprint(files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
