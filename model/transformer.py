"""The session Transformer: which item, which action and whether a purchase comes next, after every event at once.

Written to be read from top to bottom; `docs/model.md` has the formulas and what each part earned. B sessions, T events,
D dim, H heads, V item rows with row 0 for padding, K neighbours of an item. What it computes for the last event of a
session is written again as an ONNX graph in `export.to_onnx`; each export compares the two.
"""

# pyright: standard
# torch leaves what a module returns untyped, so strict would ask for a cast at every call.

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from clickscore.model.config import REPEAT_DISTANCES, REPEAT_STEP, REPEAT_TIMES, ModelConfig
from clickscore.model.loss import Queries
from clickscore.model.neighbours import Neighbours
from clickscore.schemas.events import ACTIONS
from clickscore.schemas.manifest import NEXT_ACTIONS

FIRST_REPEAT_BONUS, LATER_REPEAT_BONUS = (-0.63, 0.18, 0.10, 0.32), (0.08, 0.88, 0.51, 0.73)
"""Where the table of repeats starts, by distance: what one set of sessions taught it (the item on screen is damped)."""
INITIAL_GATE = 1.5
"""Where the neighbours' weight starts."""
INITIAL_SELF_BIAS = -1.2
"""Where an event's attention to itself starts: it has its own place in the sum already."""


class NeighbourMatrix:
    """The neighbours of all items as a sparse matrix W, and its transpose, ready to be multiplied with (V, D)."""

    def __init__(self, neighbours: Neighbours, device: torch.device) -> None:
        rows, shares = torch.from_numpy(neighbours.rows), torch.from_numpy(neighbours.shares)  # (V, K) each
        order = rows.flatten().argsort(stable=True)
        starts = torch.searchsorted(rows.flatten()[order], torch.arange(len(rows), dtype=rows.dtype))
        self._rows, self._shares = rows.to(device), shares.to(device)
        self._sources = (order // rows.shape[1]).to(device, rows.dtype)  # (V K,)
        self._source_shares = shares.flatten()[order].to(device)
        self._starts = starts.to(device, rows.dtype)  # (V,)

    def multiply(self, table: Tensor) -> Tensor:
        """Return W table: (V, D)."""
        return functional.embedding_bag(self._rows, table, per_sample_weights=self._shares, mode="sum")

    def multiply_transposed(self, gradient: Tensor) -> Tensor:
        """Return the transpose of W times a gradient: (V, D)."""
        shares = self._source_shares
        return functional.embedding_bag(self._sources, gradient, self._starts, per_sample_weights=shares, mode="sum")


class _Table(torch.autograd.Function):
    """Items with their neighbours folded in, at unit length: u = e' / |e'| of e' = e + gate * (W e).

    Its own gradient, since the table is large: a third of the memory and time of torch's.
    """

    @staticmethod
    def forward(ctx: Any, item: Tensor, gate: Tensor, mixing: NeighbourMatrix) -> Tensor:  # noqa: ANN401 (torch's own)
        met = mixing.multiply(item)  # (V, D)
        table = torch.addcmul(item, met, gate)
        length = table.norm(dim=1, keepdim=True).clamp_(min=1e-12)  # (V, 1); padding stays 0
        table.div_(length)
        ctx.save_for_backward(table, length, met, gate)
        ctx.mixing = mixing
        return table

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:  # noqa: ANN401 (torch's own)
        table, length, met, gate = ctx.saved_tensors
        along = (gradients[0] * table).sum(dim=1, keepdim=True)  # (V, 1)
        of_folded = torch.addcmul(gradients[0], table, along, value=-1).div_(length)  # (V, D)
        of_gate = (of_folded * met).sum(dim=0)  # as an einsum it is a tenth of the step: that copies both, transposed
        of_item = ctx.mixing.multiply_transposed(of_folded * gate).add_(of_folded)
        of_item[0] = 0
        return of_item, of_gate, None


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
        with torch.no_grad():
            self.distance[0] = INITIAL_SELF_BIAS

    def forward(self, x: Tensor, asking: Tensor, behind: Tensor) -> Tensor:
        """Return what each asking event gathers from those that it sees: (B, Q, D).

        Args:
            x: The events: (B, T, D).
            asking: Those that ask: (B, Q, D).
            behind: How far each event lies behind them, below 0 where it is not seen: (1 or B, Q, T).
        """
        batch, length, dim = x.shape
        query = self.query(asking).view(batch, -1, self.heads, dim // self.heads).transpose(1, 2)  # (B, H, Q, D/H)
        key, value = self.key_value(x).view(batch, length, 2, self.heads, -1).permute(2, 0, 3, 1, 4)  # (B, H, T, D/H)
        dropout = self.dropout if self.training else 0.0
        bias = relative_position_bias(self.distance, behind)
        gathered = functional.scaled_dot_product_attention(query, key, value, bias, dropout)
        return self.output(gathered.transpose(1, 2).flatten(2))  # (B, H, Q, D/H) -> (B, Q, D)


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

    def forward(self, x: Tensor, behind: Tensor, place: Tensor | None = None) -> Tensor:
        """Return what becomes of the asking events: (B, Q, D).

        Args:
            x: The events: (B, T, D).
            behind: As `Attention` takes it: (1 or B, Q, T).
            place: Where those that ask stand: (B, Q); each asks where there is none.
        """
        normed = self.norm_attention(x)
        asking = normed if place is None else _taken(normed, place)
        x = x if place is None else _taken(x, place)
        x = x + self.dropout(self.attention(normed, asking, behind))
        return x + self.dropout(self.ffn_out(functional.gelu(self.ffn_in(self.norm_ffn(x)))))


class ItemAttentionPooling(nn.Module):
    """The wanted item as a sum of the session's own items, weighted by attention, and a correction.

    A sum of item vectors lies where items lie, which the hidden vector has to learn first (CORE, SIGIR 2022); the
    correction starts at nothing and adds what no item of the session points to.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.temperature = config.temperature
        self.query = nn.Linear(config.dim, config.dim)
        self.key = nn.Linear(config.dim, config.dim)
        self.own = nn.Linear(config.dim, config.dim, bias=False)
        self.distance = nn.Parameter(torch.zeros(config.max_length, 1))

    def forward(self, vectors: Tensor, items: Tensor, asking: Tensor, behind: Tensor) -> Tensor:
        """Return the wanted vector after each asking event, of length 1 / temperature: (B, Q, D).

        Args:
            vectors: The session vectors: (B, T, D).
            items: The vectors of the items: (B, T, D).
            asking: The session vectors that ask: (B, Q, D).
            behind: How far each event lies behind them, below 0 where it is not seen: (1 or B, Q, T).
        """
        query, key, value = (part[:, None] for part in (self.query(asking), self.key(vectors), items))
        bias = relative_position_bias(self.distance, behind)
        mixed = functional.scaled_dot_product_attention(query, key, value, bias)[:, 0]  # (B, Q, D)
        return functional.normalize(mixed + self.own(asking), dim=-1) / self.temperature

    def attention(self, vectors: Tensor, asking: Tensor, behind: Tensor) -> Tensor:
        """Return the weights of the items in the sum: (B, Q, T). `forward` has no need of them by themselves."""
        logits = self.query(asking) @ self.key(vectors).mT * vectors.shape[-1] ** -0.5
        return (logits + relative_position_bias(self.distance, behind)[:, 0]).softmax(dim=-1)


class Repeats(nn.Module):
    """What is added to the score of an item that the session has had: by how long ago, how often, and the session."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(REPEAT_DISTANCES, REPEAT_TIMES))
        self.readiness = nn.Linear(dim, 1)

    def forward(self, items: Tensor, asking: Tensor, behind: Tensor) -> tuple[Tensor, Tensor]:
        """Return which events are the last on their item that an asking event sees, and what is added: (B, Q, T) each.

        Args:
            items: Rows, 0 after the end: (B, T).
            asking: The session vectors that ask: (B, Q, D).
            behind: How far each event lies behind them, below 0 where it is not seen: (1 or B, Q, T).
        """
        same = (items[:, :, None] == items[:, None]).float()  # (B, T, T)
        seen = (behind >= 0).float()  # (1 or B, Q, T)
        times = seen @ same.triu(1)  # (B, Q, T): how often the item was there before
        again = seen @ same.tril(-1)  # (B, Q, T): how often it comes again
        is_last = (seen > 0) & (again < 1)

        times = times.long().clamp(max=REPEAT_TIMES - 1)
        added = self.table[behind.clamp(0, REPEAT_DISTANCES - 1), times] * REPEAT_STEP  # (B, Q, T)
        return is_last, added + self.readiness(asking)


class SessionTransformer(nn.Module):
    """Item and action embeddings, blocks, and three heads on the same session vector."""

    def __init__(self, config: ModelConfig, items: int) -> None:
        super().__init__()
        self.config = config
        self.item = nn.Parameter(torch.zeros(items + 1, config.dim))
        self.gate = nn.Parameter(torch.full((config.dim,), INITIAL_GATE))
        self.action = nn.Embedding(len(ACTIONS), config.dim, padding_idx=0)
        self.item_dropout = nn.Dropout(config.item_dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.dim)
        self.readout = ItemAttentionPooling(config)
        self.repeats = Repeats(config.dim)
        self.next_action = nn.Linear(config.dim, len(NEXT_ACTIONS))
        self.purchase = nn.Linear(config.dim, 1)
        self.reset()

    def reset(self) -> None:
        """Draw new weights: small ones, so that a session begins as the plain sum of its items."""
        for name, parameter in self.named_parameters():
            if name == "item":
                nn.init.normal_(parameter, std=self.config.dim**-0.5)
            elif name == "action.weight":
                nn.init.normal_(parameter)  # as large as an item, or what is told by actions alone is learned late
            elif name == "readout.own.weight" or name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.ndim == 2 and not name.endswith(("distance", "table")):
                nn.init.normal_(parameter, std=0.02)
        with torch.no_grad():
            self.item[0] = self.action.weight[0] = 0
            self.action.weight[ACTIONS.index("view")] = 0  # what all others are told apart from
            table = self.repeats.table
            table[:] = torch.tensor(LATER_REPEAT_BONUS[-1] / REPEAT_STEP)
            table[:, 0] = FIRST_REPEAT_BONUS[-1] / REPEAT_STEP
            table[: len(FIRST_REPEAT_BONUS), 0] = torch.tensor(FIRST_REPEAT_BONUS) / REPEAT_STEP
            table[: len(LATER_REPEAT_BONUS), 1:] = torch.tensor(LATER_REPEAT_BONUS)[:, None] / REPEAT_STEP

    def grow(self, items: int) -> "SessionTransformer":
        """Return the same model with new items after its own, which have learned nothing yet."""
        model = SessionTransformer(self.config, items)
        known = len(self.item)
        item = torch.cat((self.item.detach(), model.item.detach()[known:]))
        model.load_state_dict(self.state_dict() | {"item": item})
        return model

    def table(self, mixing: NeighbourMatrix) -> Tensor:
        """Return the vectors of all items, of length 1, with their neighbours folded in: (V, D)."""
        table: Tensor = _Table.apply(self.item, self.gate, mixing)
        return table

    def forward(self, table: Tensor, items: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Return the session vector after each event, and what the readout sums: (B, T, D) each.

        Args:
            table: What `table` returned.
            items: Rows, left-aligned, 0 after the end: (B, T).
            actions: Codes of `schemas.events.ACTIONS`: (B, T).
        """
        of_items = self.item_dropout(functional.embedding(items, table, padding_idx=0))  # (B, T, D)
        x = of_items * self.config.dim**0.5 + self.action(actions)  # items at unit scale
        behind = relative_distances(items.shape[1], items.device)
        for block in self.blocks:
            x = block(x, behind)
        return self.norm(x), of_items

    def queries(self, vectors: Tensor, of_items: Tensor, items: Tensor, asked: Tensor) -> Queries:
        """Return what is wanted after the events that are asked for, n of them.

        Args:
            vectors: The session vectors: (B, T, D).
            of_items: What the readout sums: (B, T, D).
            items: Rows: (B, T).
            asked: Which events: (B, T), True n times.
        """
        behind = relative_distances(items.shape[1], items.device)
        is_last, added = (every[asked] for every in self.repeats(items, vectors, behind))  # (B, T, T) -> (n, T)
        at, place = is_last.nonzero(as_tuple=True)  # (m,)
        of_session = asked.nonzero()[:, 0]  # (n,)
        wanted = self.readout(vectors, of_items, vectors, behind)[asked]
        return Queries(wanted, at, items[of_session[at], place], added[at, place])

    def scores(self, table: Tensor, queries: Queries) -> Tensor:
        """Return how well each item answers each wish: (n, V - 1), column c for row c + 1."""
        scores = functional.linear(queries.vectors, table[1:])
        return scores.index_put((queries.query_index, queries.rows - 1), queries.bonus, accumulate=True)

    def reasons(self, table: Tensor, items: Tensor, actions: Tensor, ends: Tensor, rows: Tensor) -> Tensor:
        """Return by how much the scores of some items would be lower without each event: (B, K, T).

        Without means that the last event does not see it, neither in the last block nor in the readout, nor are its
        repeats counted; without the last event, that the one before it asks. Where there is no other, its part is all.

        Args:
            table: What `table` returned: (V, D).
            items: Rows, left-aligned, 0 after the end: (B, T).
            actions: Codes of `schemas.events.ACTIONS`: (B, T).
            ends: Places of the last events: (B,).
            rows: The items: (B, K).
        """
        length = items.shape[1]
        at = torch.arange(length, device=items.device)
        of_items = functional.embedding(items, table, padding_idx=0)  # (B, T, D)
        x = of_items * self.config.dim**0.5 + self.action(actions)
        behind = relative_distances(length, items.device)
        for block in self.blocks[:-1]:
            x = block(x, behind)
        last = self.blocks[-1]
        vectors = self.norm(last(x, behind))  # (B, T, D)

        left_out = torch.cat((torch.full((1,), -1, device=items.device), at))  # nothing, then each event: (Q,)
        place = (ends[:, None] - (left_out == ends[:, None]).long()).clamp(min=0)  # (B, Q)
        hidden = (left_out[:, None] == at) & (ends[:, None, None] > 0)  # (B, Q, T)
        behind = (place[:, :, None] - at).masked_fill(hidden, -1)  # (B, Q, T)
        asking = self.norm(last(x, behind, place))  # (B, Q, D)
        wanted = self.readout(vectors, of_items, asking, behind)  # (B, Q, D)
        is_last, added = self.repeats(items, asking, behind)  # (B, Q, T)
        scores = wanted @ functional.embedding(rows, table).mT  # (B, Q, K)
        scores = scores + (added * is_last) @ (items[:, :, None] == rows[:, None]).float()
        whole, without = scores[:, :1], scores[:, 1:]  # (B, 1, K), (B, T, K)
        brought = torch.where(ends[:, None, None] > 0, whole - without, whole)
        return brought.mT * (at <= ends[:, None])[:, None]

    def action_logits(self, vectors: Tensor) -> Tensor:
        """Return a logit for each of `NEXT_ACTIONS`: (n, D) -> (n, 5)."""
        return self.next_action(vectors)

    def purchase_logit(self, vectors: Tensor) -> Tensor:
        """Return the logit of a purchase in what is left of the session: (n, D) -> (n,)."""
        return self.purchase(vectors).squeeze(-1)


def relative_distances(length: int, device: torch.device) -> Tensor:
    """Return how far each event lies behind each other, below 0 for those to come: (1, T, T)."""
    at = torch.arange(length, device=device)
    return (at[:, None] - at)[None]


def relative_position_bias(distance: Tensor, behind: Tensor) -> Tensor:
    """Return what distance adds to a weight's logarithm, -inf for events not seen: (1 or B, Q, T) -> (.., H, Q, T)."""
    bias = distance[behind.clamp(0, len(distance) - 1)]  # (1 or B, Q, T, H)
    return bias.masked_fill((behind < 0)[..., None], float("-inf")).permute(0, 3, 1, 2)


def _taken(x: Tensor, place: Tensor) -> Tensor:
    """Return the events at some places of each session: (B, T, D), (B, Q) -> (B, Q, D)."""
    return x.gather(1, place[:, :, None].expand(-1, -1, x.shape[2]))
