"""Session Transformer: predicts next item, next action and purchase after every event of a session in one pass.

Read it from top to bottom; `docs/model.md` has the same formulas, and `docs/experiments.md` the effects. Shapes: B
sessions, T events, Q queries, D dim, H heads, V item rows (row 0 is padding), K neighbours of an item. Names of modules
and parameters are names of tensors in stored checkpoints. `export.to_onnx` writes the computation for the last event
again as an ONNX graph, and each export compares the two.
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

FIRST_REPEAT_BONUS = (-0.63, 0.18, 0.10, 0.32)
"""Initial score bonus, by distance 0 to 3, of an item that the session has had once. The values were learned on one
data set: they damp the item on screen (distance 0). Larger distances start at the last value."""
LATER_REPEAT_BONUS = (0.08, 0.88, 0.51, 0.73)
"""Initial score bonus, by distance 0 to 3, of an item that the session has had twice or more; learned as well."""
INITIAL_GATE = 1.5
"""Initial weight of the neighbours' sum in an item vector, in every dimension; training moves it."""
INITIAL_SELF_BIAS = -1.2
"""Initial attention bias of an event to itself: negative, as the residual connection passes the event on already."""
MIN_NORM = 1e-12
"""Smallest norm that a vector is divided by, so that the zero vector of padding stays zero."""


class NeighbourMatrix:
    """The co-occurrence matrix W of all items, sparse, and its transpose, ready to be multiplied with (V, D)."""

    def __init__(self, neighbours: Neighbours, device: torch.device) -> None:
        """Sort the entries of W by column, which gives the rows of the transpose.

        Args:
            neighbours: K neighbours and their shares for each of V rows.
            device: Device of the products.
        """
        rows, shares = torch.from_numpy(neighbours.rows), torch.from_numpy(neighbours.shares)  # (V, K) each
        order = rows.flatten().argsort(stable=True)
        starts = torch.searchsorted(rows.flatten()[order], torch.arange(len(rows), dtype=rows.dtype))
        self._rows, self._shares = rows.to(device), shares.to(device)
        self._sources = (order // rows.shape[1]).to(device, rows.dtype)  # (V K,)
        self._source_shares = shares.flatten()[order].to(device)
        self._starts = starts.to(device, rows.dtype)  # (V,)

    def multiply(self, table: Tensor) -> Tensor:
        """Return W @ table: (V, D) -> (V, D)."""
        return functional.embedding_bag(self._rows, table, per_sample_weights=self._shares, mode="sum")

    def multiply_transposed(self, gradient: Tensor) -> Tensor:
        """Return W.T @ gradient: (V, D) -> (V, D)."""
        shares = self._source_shares
        return functional.embedding_bag(self._sources, gradient, self._starts, per_sample_weights=shares, mode="sum")


class _FoldNeighbours(torch.autograd.Function):
    """Unit item vectors with neighbours added: u = e' / |e'|, e' = e + gate * (W @ e).

    A co-occurrence graph as in GCE-GNN (SIGIR 2020), folded into the table; unit length as in NISER (2019). The
    gradient is written by hand because the table is large: a third of the memory and time of torch's own.
    """

    @staticmethod
    def forward(ctx: Any, item: Tensor, gate: Tensor, neighbours: NeighbourMatrix) -> Tensor:  # noqa: ANN401 (torch's own)
        neighbour_sum = neighbours.multiply(item)  # (V, D)
        table = torch.addcmul(item, neighbour_sum, gate)  # (V, D): e + gate * (W @ e)
        norm = table.norm(dim=1, keepdim=True).clamp_(min=MIN_NORM)  # (V, 1)
        table.div_(norm)
        ctx.save_for_backward(table, norm, neighbour_sum, gate)
        ctx.neighbours = neighbours
        return table

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:  # noqa: ANN401 (torch's own)
        table, norm, neighbour_sum, gate = ctx.saved_tensors
        # dL/de' = (g - u (g . u)) / |e'|: only the part of g that is orthogonal to u turns the vector
        radial = (gradients[0] * table).sum(dim=1, keepdim=True)  # (V, 1)
        grad_folded = torch.addcmul(gradients[0], table, radial, value=-1).div_(norm)  # (V, D)
        # dL/d gate = sum_v dL/de' * (W @ e); einsum would copy both factors, which costs a tenth of the step
        grad_gate = (grad_folded * neighbour_sum).sum(dim=0)  # (D,)
        # dL/de = dL/de' + W.T @ (gate * dL/de')
        grad_item = ctx.neighbours.multiply_transposed(grad_folded * gate).add_(grad_folded)  # (V, D)
        grad_item[0] = 0  # padding is never trained
        return grad_item, grad_gate, None


class Attention(nn.Module):
    """Causal multi-head self-attention with a learned relative position bias.

    Attention as in SASRec (ICDM 2018), but positions are distances to the query, not indices from the start. So every
    event can stand for the end of a session: one pass over a session trains all its prefixes, and neither events cut
    from the start nor padding after the end change a result.
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

    def forward(self, x: Tensor, query_states: Tensor, distance: Tensor) -> Tensor:
        """Return softmax(q k.T / sqrt(D / H) + bias[distance]) v for each query, through the output layer: (B, Q, D).

        Args:
            x: States of the events, as keys and values: (B, T, D).
            query_states: States of the events that attend: (B, Q, D).
            distance: Events from each key to each query, negative for a masked key: (1 or B, Q, T).
        """
        batch, length, dim = x.shape
        query = (
            self.query(query_states).view(batch, -1, self.heads, dim // self.heads).transpose(1, 2)
        )  # (B, H, Q, D/H)
        key, value = self.key_value(x).view(batch, length, 2, self.heads, -1).permute(2, 0, 3, 1, 4)  # (B, H, T, D/H)
        dropout = self.dropout if self.training else 0.0
        bias = relative_position_bias(self.distance, distance)  # (1 or B, H, Q, T)
        # (B, H, Q, D/H) x (B, H, D/H, T) -> (B, H, Q, T); times value -> (B, H, Q, D/H)
        attended = functional.scaled_dot_product_attention(query, key, value, bias, dropout)
        return self.output(attended.transpose(1, 2).flatten(2))  # (B, H, Q, D/H) -> (B, Q, D)


class Block(nn.Module):
    """One pre-norm layer: x = x + attention(norm(x)), then x = x + ffn(norm(x)) with a GELU."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(config.dim)
        self.attention = Attention(config)
        self.norm_ffn = nn.LayerNorm(config.dim)
        self.ffn_in = nn.Linear(config.dim, config.ffn)
        self.ffn_out = nn.Linear(config.ffn, config.dim)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, distance: Tensor, position_index: Tensor | None = None) -> Tensor:
        """Return the new states of the queries: (B, Q, D).

        Args:
            x: States of the events: (B, T, D).
            distance: Events from each key to each query, negative for a masked key: (1 or B, Q, T).
            position_index: Positions of the queries (B, Q); without an index every event is a query, and Q is T.
        """
        normed = self.norm_attention(x)  # (B, T, D)
        query_states = normed if position_index is None else _select_positions(normed, position_index)  # (B, Q, D)
        x = x if position_index is None else _select_positions(x, position_index)  # (B, Q, D)
        x = x + self.dropout(self.attention(normed, query_states, distance))
        return x + self.dropout(self.ffn_out(functional.gelu(self.ffn_in(self.norm_ffn(x)))))


class ItemAttentionPooling(nn.Module):
    """Query vector as an attention-weighted sum of the session's item vectors, plus a correction: readout, as in CORE.

    r = sum_i alpha_i u_i + W_own h, alpha = softmax(q(h) k(h_i).T / sqrt(D) + bias[distance]). A sum of item vectors
    lies in the space of the items (CORE, SIGIR 2022), while a hidden vector has to learn that space first. W_own starts
    at 0 and adds directions that no item of the session has.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.temperature = config.temperature
        self.query = nn.Linear(config.dim, config.dim)
        self.key = nn.Linear(config.dim, config.dim)
        self.own = nn.Linear(config.dim, config.dim, bias=False)
        self.distance = nn.Parameter(torch.zeros(config.max_length, 1))

    def forward(self, vectors: Tensor, item_vectors: Tensor, query_states: Tensor, distance: Tensor) -> Tensor:
        """Return the query vector of each query state, of length 1 / temperature: (B, Q, D).

        Args:
            vectors: Session vectors h of all events, as keys: (B, T, D).
            item_vectors: Item vectors u of all events, as values: (B, T, D).
            query_states: Session vectors h of the queries: (B, Q, D).
            distance: Events from each key to each query, negative for a masked key: (1 or B, Q, T).
        """
        query, key, value = (part[:, None] for part in (self.query(query_states), self.key(vectors), item_vectors))
        bias = relative_position_bias(self.distance, distance)  # (1 or B, 1, Q, T)
        pooled = functional.scaled_dot_product_attention(query, key, value, bias)[:, 0]  # (B, 1, Q, D) -> (B, Q, D)
        return functional.normalize(pooled + self.own(query_states), dim=-1) / self.temperature

    def attention(self, vectors: Tensor, query_states: Tensor, distance: Tensor) -> Tensor:
        """Return the attention weights alpha: (B, Q, T). `forward` computes the same weights inside its kernel.

        Args:
            vectors: Session vectors of all events: (B, T, D).
            query_states: Session vectors of the queries: (B, Q, D).
            distance: Events from each key to each query, negative for a masked key: (1 or B, Q, T).
        """
        logits = self.query(query_states) @ self.key(vectors).mT * vectors.shape[-1] ** -0.5  # (B, Q, T)
        return (logits + relative_position_bias(self.distance, distance)[:, 0]).softmax(dim=-1)


class Repeats(nn.Module):
    """Score bonus of items that the session has had: bonus = 10 R[distance, earlier events] + w . h + b.

    Damping of repeats: the item on screen is rarely the next one, while an item that the user came back to often is.
    MiaSRec (SIGIR 2024) has the idea of treating repeated items apart.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(REPEAT_DISTANCES, REPEAT_TIMES))
        self.readiness = nn.Linear(dim, 1)

    def forward(self, items: Tensor, query_states: Tensor, distance: Tensor) -> tuple[Tensor, Tensor]:
        """Return a mask of the newest event on each item and the bonus of that item, for each query: (B, Q, T) each.

        Args:
            items: Item rows, 0 for padding: (B, T).
            query_states: Session vectors of the queries: (B, Q, D).
            distance: Events from each key to each query, negative for a masked key: (1 or B, Q, T).
        """
        same_item = (items[:, :, None] == items[:, None]).float()  # (B, T, T)
        seen = (distance >= 0).float()  # (1 or B, Q, T)
        earlier = seen @ same_item.triu(1)  # (B, Q, T): visible events on the same item before each event
        later = seen @ same_item.tril(-1)  # (B, Q, T): visible events on the same item after each event
        is_newest = (seen > 0) & (later < 1)

        earlier = earlier.long().clamp(max=REPEAT_TIMES - 1)
        bonus = self.table[distance.clamp(0, REPEAT_DISTANCES - 1), earlier] * REPEAT_STEP  # (B, Q, T)
        return is_newest, bonus + self.readiness(query_states)  # (B, Q, T) + (B, Q, 1)


class SessionTransformer(nn.Module):
    """Item and action embeddings, blocks, and three heads on one session vector: item, next action, purchase."""

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
        """Draw new weights. Those of the blocks are small, so a session vector starts as the sum of its items."""
        for name, parameter in self.named_parameters():
            if name == "item":
                nn.init.normal_(parameter, std=self.config.dim**-0.5)  # vectors of about unit length
            elif name == "action.weight":
                nn.init.normal_(parameter)  # the scale of an item in the input; at 0.02 actions were learned too late
            elif name == "readout.own.weight" or name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.ndim == 2 and not name.endswith(("distance", "table")):
                nn.init.normal_(parameter, std=0.02)  # the usual scale of Transformers since BERT and GPT-2
        with torch.no_grad():
            self.item[0] = self.action.weight[0] = 0  # padding
            self.action.weight[ACTIONS.index("view")] = 0  # a view is the base: other actions add a difference
            table = self.repeats.table
            table[:] = torch.tensor(LATER_REPEAT_BONUS[-1] / REPEAT_STEP)
            table[:, 0] = FIRST_REPEAT_BONUS[-1] / REPEAT_STEP
            table[: len(FIRST_REPEAT_BONUS), 0] = torch.tensor(FIRST_REPEAT_BONUS) / REPEAT_STEP
            table[: len(LATER_REPEAT_BONUS), 1:] = torch.tensor(LATER_REPEAT_BONUS)[:, None] / REPEAT_STEP

    def grow(self, items: int) -> "SessionTransformer":
        """Return a copy for more items, for a warm start: all weights are kept, and new rows hold random vectors."""
        model = SessionTransformer(self.config, items)
        item = torch.cat((self.item.detach(), model.item.detach()[len(self.item) :]))
        model.load_state_dict(self.state_dict() | {"item": item})
        return model

    def table(self, neighbours: NeighbourMatrix) -> Tensor:
        """Return the unit vectors of all items, with their neighbours added: (V, D)."""
        table: Tensor = _FoldNeighbours.apply(self.item, self.gate, neighbours)
        return table

    def forward(self, table: Tensor, items: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Return the session vector after each event, and the item vector of each event: (B, T, D) each.

        The input is x_t = sqrt(D) dropout(u_t) + a_t.

        Args:
            table: Item vectors from `table`: (V, D).
            items: Item rows, left-aligned, 0 for padding at the end: (B, T).
            actions: Codes of `schemas.events.ACTIONS`: (B, T).
        """
        item_vectors = self.item_dropout(functional.embedding(items, table, padding_idx=0))  # (B, T, D)
        x = item_vectors * self.config.dim**0.5 + self.action(actions)  # sqrt(D) scales components to about 1
        distance = relative_distances(items.shape[1], items.device)  # (1, T, T)
        for block in self.blocks:
            x = block(x, distance)
        return self.norm(x), item_vectors

    def queries(self, vectors: Tensor, item_vectors: Tensor, items: Tensor, query_mask: Tensor) -> Queries:
        """Return query vectors and repeat bonuses after the n selected events.

        Args:
            vectors: Session vectors: (B, T, D).
            item_vectors: Item vectors of the events: (B, T, D).
            items: Item rows, 0 for padding: (B, T).
            query_mask: Selected events, n of them: bool (B, T).
        """
        distance = relative_distances(items.shape[1], items.device)
        is_newest, bonus = (part[query_mask] for part in self.repeats(items, vectors, distance))  # (B, T, T) -> (n, T)
        query_index, position_index = is_newest.nonzero(as_tuple=True)  # (m,)
        session_index = query_mask.nonzero()[:, 0]  # (n,)
        query = self.readout(vectors, item_vectors, vectors, distance)[query_mask]  # (n, D)
        rows = items[session_index[query_index], position_index]  # (m,)
        return Queries(query, query_index, rows, bonus[query_index, position_index])

    def scores(self, table: Tensor, queries: Queries) -> Tensor:
        """Return scores, cosine / temperature + bonus, column c for row c + 1: (n, V - 1).

        Args:
            table: Item vectors from `table`: (V, D).
            queries: n queries.
        """
        scores = functional.linear(queries.vectors, table[1:])  # (n, D) x (D, V - 1) -> (n, V - 1)
        return scores.index_put((queries.query_index, queries.rows - 1), queries.bonus, accumulate=True)

    def reasons(self, table: Tensor, items: Tensor, actions: Tensor, ends: Tensor, rows: Tensor) -> Tensor:
        """Return how much each event adds to the scores of some items, by leave-one-out: (B, K, T).

        Leave-one-out: event t is masked from the last event's attention, pooling and repeat counts. Leaving out the
        last event itself scores from the one before. In a one-event session the event gets the whole score. States of
        earlier events, which may have attended to event t, stay as they are.

        Args:
            table: Item vectors from `table`: (V, D).
            items: Item rows, left-aligned, 0 for padding at the end: (B, T).
            actions: Codes of `schemas.events.ACTIONS`: (B, T).
            ends: Position of the last event of each session: (B,).
            rows: Rows of the explained items: (B, K).
        """
        length = items.shape[1]
        position = torch.arange(length, device=items.device)  # (T,)
        item_vectors = functional.embedding(items, table, padding_idx=0)  # (B, T, D)
        x = item_vectors * self.config.dim**0.5 + self.action(actions)
        distance = relative_distances(length, items.device)
        for block in self.blocks[:-1]:
            x = block(x, distance)
        last_block = self.blocks[-1]
        vectors = self.norm(last_block(x, distance))  # (B, T, D)

        # Query 0 leaves nothing out, query t + 1 leaves event t out: Q = T + 1
        left_out = torch.cat((torch.full((1,), -1, device=items.device), position))  # (Q,)
        query_position = (ends[:, None] - (left_out == ends[:, None]).long()).clamp(min=0)  # (B, Q)
        masked = (left_out[:, None] == position) & (ends[:, None, None] > 0)  # (B, Q, T)
        distance = (query_position[:, :, None] - position).masked_fill(masked, -1)  # (B, Q, T)
        query_states = self.norm(last_block(x, distance, query_position))  # (B, Q, D)
        query = self.readout(vectors, item_vectors, query_states, distance)  # (B, Q, D)
        is_newest, bonus = self.repeats(items, query_states, distance)  # (B, Q, T)
        scores = query @ functional.embedding(rows, table).mT  # (B, Q, D) x (B, D, K) -> (B, Q, K)
        scores = scores + (bonus * is_newest) @ (items[:, :, None] == rows[:, None]).float()  # (B, Q, T) x (B, T, K)
        full, reduced = scores[:, :1], scores[:, 1:]  # (B, 1, K), (B, T, K)
        contributions = torch.where(ends[:, None, None] > 0, full - reduced, full)  # (B, T, K)
        return contributions.mT * (position <= ends[:, None])[:, None]  # (B, K, T), 0 for padding

    def action_logits(self, vectors: Tensor) -> Tensor:
        """Return a logit for each of `NEXT_ACTIONS`: (n, D) -> (n, 5)."""
        return self.next_action(vectors)

    def purchase_logit(self, vectors: Tensor) -> Tensor:
        """Return the logit of a purchase later in the session: (n, D) -> (n,)."""
        return self.purchase(vectors).squeeze(-1)


def relative_distances(length: int, device: torch.device) -> Tensor:
    """Return the distance from each key j to each query i, i - j, negative for later events: (1, T, T)."""
    position = torch.arange(length, device=device)
    return (position[:, None] - position)[None]


def relative_position_bias(table: Tensor, distance: Tensor) -> Tensor:
    """Return the attention bias of each distance, -inf for masked keys.

    One learned number for each distance and head, as in T5 but without buckets. Distances beyond the table share its
    last row.

    Args:
        table: Bias by distance and head: (max_length, H).
        distance: Events from each key to each query, negative for a masked key: (1 or B, Q, T).

    Returns:
        (1 or B, H, Q, T).
    """
    bias = table[distance.clamp(0, len(table) - 1)]  # (1 or B, Q, T, H)
    return bias.masked_fill((distance < 0)[..., None], float("-inf")).permute(0, 3, 1, 2)


def _select_positions(x: Tensor, position_index: Tensor) -> Tensor:
    """Return the states at some positions of each session: (B, T, D), (B, Q) -> (B, Q, D)."""
    return x.gather(1, position_index[:, :, None].expand(-1, -1, x.shape[2]))
