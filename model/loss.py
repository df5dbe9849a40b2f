"""Loss: cross-entropy over the whole catalogue, with its gradient made in the same pass and no large matrix kept."""

# pyright: standard
# torch leaves what an autograd function is given and returns untyped.

from typing import Any, NamedTuple

import torch
from torch import Tensor

SCORES = {"cpu": 2**25, "cuda": 2**28}
"""Scores that are held at once, by device: enough rows for the matrix products to be quick."""


class Wishes(NamedTuple):
    """What is wanted next, n times: `vectors @ table.T`, with something added to single scores."""

    vectors: Tensor
    """As long as the largest score can be: (n, D)."""
    at: Tensor
    """Ascending numbers of vectors: (m,)."""
    rows: Tensor
    """Of the table, no pair (at, row) twice: (m,)."""
    added: Tensor
    """To the score of that row: (m,)."""


def quickest(device: torch.device) -> torch.dtype:
    """Return the precision that large matrix products are quick in: bfloat16 where the processor has it."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    has_bfloat16 = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()  # a newer torch than ours
    return torch.bfloat16 if has_bfloat16 else torch.float32


def catalogue_loss(wishes: Wishes, table: Tensor, targets: Tensor, precision: torch.dtype = torch.float32) -> Tensor:
    """Return the cross-entropy of the softmax over all rows of the table but row 0, summed over wishes.

    Scores are at most some tens, as those of cosines with a temperature are: no maximum is taken out before `exp`.

    Args:
        wishes: n of them.
        table: Unit vectors, row 0 for padding: (V, D).
        targets: Rows of the table, at least 1: (n,).
        precision: Of the products and of `exp`. Targets' scores, norms and gradients' sums are fp32.
    """
    total: Tensor = _CatalogueLoss.apply(*wishes, table, targets, precision)
    return total


class _CatalogueLoss(torch.autograd.Function):
    """Makes the gradients where it makes the sum."""

    @staticmethod
    def forward(  # noqa: PLR0917 (torch passes them by place)
        ctx: Any,  # noqa: ANN401 (torch's own)
        vectors: Tensor,
        at: Tensor,
        rows: Tensor,
        added: Tensor,
        table: Tensor,
        targets: Tensor,
        precision: torch.dtype,
    ) -> Tensor:
        items = table[1:]  # (V - 1, D)
        quick_items = items.to(precision)
        of_vectors, of_table, of_added = torch.empty_like(vectors), torch.zeros_like(table), torch.empty_like(added)
        of_items = of_table[1:]
        is_target = rows == targets[at]  # (m,)
        of_targets = (vectors * table[targets]).sum(dim=1)  # (n,)
        of_targets.index_add_(0, at[is_target], added[is_target])
        total = -of_targets.sum()

        step = max(1, SCORES[vectors.device.type] // len(items))
        starts = torch.arange(0, len(vectors) + step, step, device=at.device)
        bounds = torch.searchsorted(at, starts).tolist()
        for part, start in enumerate(range(0, len(vectors), step)):
            some = vectors[start : start + step]  # (step, D)
            masses = (some.to(precision) @ quick_items.T).exp_()  # (step, V - 1)

            # Single scores are changed in place: scatter_ would copy the whole matrix
            of_part = slice(bounds[part], bounds[part + 1])
            where = (at[of_part] - start) * len(items) + rows[of_part] - 1
            single = masses.view(-1)[where].float() * added[of_part].exp()
            masses.view(-1).index_put_((where,), single.to(precision))

            norm = masses.sum(dim=1).float()  # (step,); sum(dtype=float32) would copy the whole matrix
            total += norm.log().sum()
            of_added[of_part] = single / norm[at[of_part] - start]
            torch.div((masses @ quick_items).float(), norm[:, None], out=of_vectors[start : start + step])
            of_items += masses.T @ (some / norm[:, None]).to(precision)  # (V - 1, step) x (step, D)
        of_vectors -= table[targets]
        of_table.index_add_(0, targets, vectors, alpha=-1)
        of_added -= is_target.to(added.dtype)
        ctx.save_for_backward(of_vectors, of_added, of_table)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401 (torch's own)
        of_vectors, of_added, of_table = (gradients[0] * saved for saved in ctx.saved_tensors)
        return of_vectors, None, None, of_added, of_table, None, None
