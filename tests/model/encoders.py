"""Encoders: a tiny language model as Hugging Face lays models out, with weights that nobody trained."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789,-"


def write_encoder(folder: Path, seed: int = 0) -> Path:
    """Write tokenizer.json, config.json and model.safetensors, and return the folder."""
    folder.mkdir(parents=True)
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    tokenizer = Tokenizer(models.WordPiece({token: index for index, token in enumerate(tokens)}))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.save(str(folder / "tokenizer.json"))
    torch.manual_seed(seed)
    shape = BertConfig(
        vocab_size=len(tokens), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    BertModel(shape).save_pretrained(folder)
    return folder


class _Hidden(torch.nn.Module):
    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, ids, mask, types):
        return self.body(input_ids=ids, attention_mask=mask, token_type_ids=types).last_hidden_state


def write_graph(folder: Path, weights: Path) -> Path:
    """Write what `write_encoder` wrote as tokenizer.json and model.onnx, and return the folder."""
    folder.mkdir(parents=True)
    (folder / "tokenizer.json").write_bytes((weights / "tokenizer.json").read_bytes())
    body = BertModel.from_pretrained(weights, local_files_only=True, attn_implementation="eager").eval()
    ids = torch.ones((2, 5), dtype=torch.int64)
    names = ["input_ids", "attention_mask", "token_type_ids"]
    torch.onnx.export(
        _Hidden(body),
        (ids, ids, ids * 0),
        folder / "model.onnx",
        input_names=names,
        output_names=["last_hidden_state"],
        dynamic_axes={name: {0: "texts", 1: "tokens"} for name in (*names, "last_hidden_state")},
        dynamo=False,
        opset_version=18,
    )
    return folder
