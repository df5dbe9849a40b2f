"""Loss: cross-entropy over the whole catalogue; forward also makes the gradient, so no score matrix is stored."""

# pyright: standard
# torch does not type arguments and results of an autograd function.

from typing import Any, NamedTuple

import torch
from torch import Tensor

MICRO_BATCH_SCORES = {"cpu": 2**25, "cuda": 2**28}
"""Scores in memory at once, by device (128 MiB and 1 GiB as float32): rows enough to keep the matrix products fast."""


class Queries(NamedTuple):
    """The n vectors that the next items are searched with: scores are `vectors @ table.T`, plus m single bonuses."""

    vectors: Tensor
    """Query vectors; their length 1 / temperature is the largest score before any bonus: (n, D)."""
    query_index: Tensor
    """Query that each bonus belongs to, an index of `vectors`, ascending: (m,)."""
    rows: Tensor
    """Row of the table that each bonus belongs to; no pair (query_index, row) is repeated: (m,)."""
    bonus: Tensor
    """Number added to the score of that row for that query: (m,)."""


def fast_dtype(device: torch.device) -> torch.dtype:
    """Return the type for large matrix products: bfloat16 if the processor supports bfloat16, else float32."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    has_bfloat16 = getattr(
        torch.cpu, "_is_avx512_bf16_supported", lambda: False
    )()  # older versions of torch lack this function
    return torch.bfloat16 if has_bfloat16 else torch.float32


def catalogue_loss(queries: Queries, table: Tensor, targets: Tensor, precision: torch.dtype = torch.float32) -> Tensor:
    """Return the softmax cross-entropy over all rows of the table except row 0, summed over the queries.

    L = sum_i (log sum_v exp(s_iv) - s_i,target(i)), where s = vectors @ table.T + bonus. Scores are cosines divided by
    a temperature, plus a bonus: a few tens at most. So `exp` cannot overflow, and the usual maximum is not subtracted.

    Args:
        queries: Query vectors and bonuses of n queries.
        table: Unit item vectors, row 0 for padding: (V, D).
        targets: Label of each query, a row of the table, at least 1: (n,).
        precision: Type of the matrix products and of `exp`. Target scores, norms and sums of gradients are float32.
    """
    total: Tensor = _CatalogueLoss.apply(*queries, table, targets, precision)
    return total


class _CatalogueLoss(torch.autograd.Function):
    """Cross-entropy whose forward also makes the gradients, one micro-batch of queries at a time.

    With P = softmax(s): dL/d vectors = P @ items - table[targets], dL/d items = P.T @ vectors - (target rows), and
    dL/d bonus = P - [row is the target].
    """

    @staticmethod
    def forward(  # noqa: PLR0917 (torch passes the arguments by position)
        ctx: Any,  # noqa: ANN401 (torch's own)
        vectors: Tensor,
        query_index: Tensor,
        rows: Tensor,
        bonus: Tensor,
        table: Tensor,
        targets: Tensor,
        precision: torch.dtype,
    ) -> Tensor:
        items = table[1:]  # (V - 1, D)
        items_low = items.to(precision)
        grad_vectors, grad_table, grad_bonus = (
            torch.empty_like(vectors),
            torch.zeros_like(table),
            torch.empty_like(bonus),
        )
        grad_items = grad_table[1:]
        is_target = rows == targets[query_index]  # (m,)
        target_scores = (vectors * table[targets]).sum(dim=1)  # (n,)
        target_scores.index_add_(0, query_index[is_target], bonus[is_target])
        total = -target_scores.sum()

        step = max(1, MICRO_BATCH_SCORES[vectors.device.type] // len(items))  # queries of a micro-batch
        starts = torch.arange(0, len(vectors) + step, step, device=query_index.device)
        bounds = torch.searchsorted(query_index, starts).tolist()
        for number, start in enumerate(range(0, len(vectors), step)):
            micro_batch = vectors[start : start + step]  # (step, D)
            masses = (micro_batch.to(precision) @ items_low.T).exp_()  # (step, V - 1): exp of the scores

            # Add each bonus in place, exp(s + bonus) = exp(s) exp(bonus): scatter_ would copy the whole matrix
            part = slice(bounds[number], bounds[number + 1])
            cells = (query_index[part] - start) * len(items) + rows[part] - 1  # flat positions in `masses`
            bonus_masses = masses.view(-1)[cells].float() * bonus[part].exp()
            masses.view(-1).index_put_((cells,), bonus_masses.to(precision))

            norm = masses.sum(dim=1).float()  # (step,); sum(dtype=float32) would copy the whole matrix
            total += norm.log().sum()
            grad_bonus[part] = bonus_masses / norm[query_index[part] - start]
            torch.div((masses @ items_low).float(), norm[:, None], out=grad_vectors[start : start + step])
            grad_items += masses.T @ (micro_batch / norm[:, None]).to(precision)  # (V - 1, step) @ (step, D)
        grad_vectors -= table[targets]
        grad_table.index_add_(0, targets, vectors, alpha=-1)
        grad_bonus -= is_target.to(bonus.dtype)
        ctx.save_for_backward(grad_vectors, grad_bonus, grad_table)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401 (torch's own)
        grad_vectors, grad_bonus, grad_table = (gradients[0] * saved for saved in ctx.saved_tensors)
        return grad_vectors, None, None, grad_bonus, grad_table, None, None
