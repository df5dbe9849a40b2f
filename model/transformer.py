"""The session Transformer: which item, which action and whether a purchase comes next, after every event at once.

Written to be read from top to bottom. B sessions, T events, D dim, H heads, V item rows with row 0 for padding.
What it computes for the last event of a session is written again as an ONNX graph in `export.to_onnx`; each export
compares the two.
"""

# pyright: standard
# torch leaves what a module returns untyped, so strict would ask for a cast at every call.

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.config import ModelConfig
from schemas.events import ACTIONS
from schemas.manifest import NEXT_ACTIONS


class Attention(nn.Module):
    """Causal self-attention with a learned bias by distance.

    No event knows its place from the start, only how far behind the asking one it lies. So every event can stand for
    the end of a session: one pass over a session trains all its beginnings, and neither what was cut from its start
    nor padding after its end changes an answer.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.dropout = config.dropout
        self.query = nn.Linear(config.dim, config.dim)
        self.key_value = nn.Linear(config.dim, 2 * config.dim)
        self.output = nn.Linear(config.dim, config.dim)
        self.distance = nn.Parameter(torch.zeros(config.max_length, config.heads))

    def forward(self, x: Tensor) -> Tensor:
        """Return what each event gathers from itself and those before it: (B, T, D)."""
        batch, length, dim = x.shape
        query = self.query(x).view(batch, length, self.heads, -1).transpose(1, 2)  # (B, H, T, D/H)
        key, value = self.key_value(x).view(batch, length, 2, self.heads, -1).permute(2, 0, 3, 1, 4)  # (B, H, T, D/H)
        dropout = self.dropout if self.training else 0.0
        gathered = functional.scaled_dot_product_attention(query, key, value, self._bias(length), dropout)
        return self.output(gathered.transpose(1, 2).reshape(batch, length, dim))  # (B, H, T, D/H) -> (B, T, D)

    def _bias(self, length: int) -> Tensor:
        """Return what distance adds to a weight's logarithm, -inf for events to come: (H, T, T)."""
        at = torch.arange(length, device=self.distance.device)
        behind = at[:, None] - at  # (T, T)
        bias = self.distance[behind.clamp(0, len(self.distance) - 1)]  # (T, T, H)
        return bias.masked_fill((behind < 0)[:, :, None], float("-inf")).permute(2, 0, 1)


class Block(nn.Module):
    """One layer: attention, then a feed-forward network, each on normalised input and added to what came in."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(config.dim)
        self.attention = Attention(config)
        self.norm_ffn = nn.LayerNorm(config.dim)
        self.ffn_in = nn.Linear(config.dim, config.ffn)
        self.ffn_out = nn.Linear(config.ffn, config.dim)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, T, D)."""
        x = x + self.dropout(self.attention(self.norm_attention(x)))
        return x + self.dropout(self.ffn_out(functional.gelu(self.ffn_in(self.norm_ffn(x)))))


class SessionTransformer(nn.Module):
    """Item and action embeddings, blocks, and three heads on the same session vector."""

    def __init__(self, config: ModelConfig, items: int) -> None:
        super().__init__()
        self.config = config
        self.item = nn.Embedding(items + 1, config.dim, padding_idx=0)
        self.action = nn.Embedding(len(ACTIONS), config.dim, padding_idx=0)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.dim)
        self.readout = nn.Linear(config.dim, config.dim)
        self.next_action = nn.Linear(config.dim, len(NEXT_ACTIONS))
        self.purchase = nn.Linear(config.dim, 1)
        self.reset()

    def reset(self) -> None:
        """Draw new weights: small ones, so that at first every item is about as likely."""
        for name, parameter in self.named_parameters():
            if name == "item.weight":
                nn.init.normal_(parameter, std=self.config.dim**-0.5)  # rows of length 1, as the scores like them
            elif name == "action.weight":
                nn.init.normal_(parameter)  # as large as an item, once that is scaled
            elif name == "readout.weight":
                nn.init.eye_(parameter)  # at first the session vector itself
            elif parameter.ndim == 2 and not name.endswith("distance"):
                nn.init.normal_(parameter, std=0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)
        with torch.no_grad():
            self.item.weight[0] = self.action.weight[0] = 0

    def forward(self, items: Tensor, actions: Tensor) -> Tensor:
        """Return the session vector after each event: (B, T, D).

        Args:
            items: Rows, left-aligned, 0 after the end: (B, T).
            actions: Codes of `schemas.events.ACTIONS`: (B, T).
        """
        x = self.item(items) * self.config.dim**0.5 + self.action(actions)  # (B, T, D), items at unit scale
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def tied(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Return the vectors of the items that would fit best, and those of all items: (n, D), (V - 1, D)."""
        return self.readout(vectors), self.item.weight[1:]  # the table is both input and output

    def scores(self, vectors: Tensor) -> Tensor:
        """Return how well each item follows each session vector: (n, D) -> (n, V - 1), column c for row c + 1."""
        return functional.linear(*self.tied(vectors))

    def action_logits(self, vectors: Tensor) -> Tensor:
        """Return a logit for each of `NEXT_ACTIONS`: (n, D) -> (n, 5)."""
        return self.next_action(vectors)

    def purchase_logit(self, vectors: Tensor) -> Tensor:
        """Return the logit of a purchase in what is left of the session: (n, D) -> (n,)."""
        return self.purchase(vectors).squeeze(-1)
