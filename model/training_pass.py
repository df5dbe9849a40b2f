"""Training pass: one pass over sessions, with cross-fitted neighbours, micro-batches, the loss and the optimizer."""

# pyright: standard
# torch leaves what a module returns untyped.

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from clickscore.model.array_types import Ints, Longs
from clickscore.model.config import TrainConfig
from clickscore.model.examples import NO_NEXT_ITEM, Examples, locate_events
from clickscore.model.loss import Queries, catalogue_loss, fast_dtype
from clickscore.model.neighbours import (
    Neighbours,
    PairCounts,
    add_counts,
    count_pairs,
    select_neighbours,
    subtract_counts,
)
from clickscore.model.training_batches import pad_sessions, shuffle_fold_batches
from clickscore.model.transformer import NeighbourMatrix, SessionTransformer

ADAM_BETAS = (0.9, 0.98)
"""Decay of Adam's two moments, as in "Attention is all you need" (NeurIPS 2017)."""
MAX_GRADIENT_NORM = 1.0
"""Gradients are clipped to this norm, except the item table: Adam bounds the update of each of its rows by itself."""
FINAL_RATE_SHARE = 0.02
"""Learning rate at the end of training, as a share of the peak."""
MIN_BATCH_SESSIONS = 16
"""Smallest batch: a small data set gets batches down to this size rather than only a few steps."""
UNDECAYED_TABLES = {"item", "action.weight", "repeats.table"}
"""Matrices without weight decay, as the tables of position biases: rare rows would only shrink."""


class LearningRates(NamedTuple):
    """Learning-rate schedule: linear warm-up to the peak, then cosine decay (SGDR, ICLR 2017, without restarts)."""

    steps: int
    """Steps of the whole training."""
    peak: float
    """Largest learning rate."""
    warmup: int
    """Steps of the warm-up; a tenth of all steps at most."""

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0.

        peak * (step + 1) / (warmup + 1) in the warm-up, then peak * (f + (1 - f) (1 + cos(pi progress)) / 2), where f
        is `FINAL_RATE_SHARE` and progress grows from 0 to 1.
        """
        warmup = min(self.warmup, self.steps // 10)
        progress = (step - warmup) / max(1, self.steps - warmup)
        cosine = FINAL_RATE_SHARE + (1 - FINAL_RATE_SHARE) * (1 + math.cos(math.pi * progress)) / 2
        return self.peak * ((step + 1) / (warmup + 1) if step < warmup else cosine)


class TrainingPass(NamedTuple):
    """Sessions to train on, in folds, and for each fold the neighbours counted in all sessions of the other folds.

    Cross-fitting: if a session's own co-occurrences were among the neighbours, each next item would be a neighbour of
    the last one, and the model would learn to rely on that leak.
    """

    examples: Examples
    """Sessions and their labels."""
    fold_index: Ints
    """Fold of each session: (sessions,)."""
    neighbour_matrices: tuple[NeighbourMatrix, ...]
    """Matrix for each fold, counted without the sessions of that fold."""
    pairs: PairCounts
    """Co-occurrence counts of all sessions, earlier training included."""
    neighbours: Neighbours
    """Neighbours from `pairs`: for validation and serving."""
    batch_size: int
    """Sessions of a step, at most."""
    steps: int
    """Steps of one pass."""
    events_per_step: float
    """Mean number of events of a step."""
    labels_per_step: float
    """Mean number of events of a step that have a next-item label."""
    rates: LearningRates
    """Learning rates of all passes."""
    config: TrainConfig


def prepare_pass(
    examples: Examples,
    weights: Longs,
    earlier: PairCounts | None,
    model: SessionTransformer,
    config: TrainConfig,
    *,
    batch_size: int,
    passes: int = 0,
) -> TrainingPass:
    """Return a training pass over sessions: folds, cross-fitted neighbours and learning rates.

    Args:
        examples: Sessions to train on.
        weights: Weight of each session's co-occurrences: (sessions,).
        earlier: Co-occurrence counts of earlier sessions, which are part of every fold's neighbours.
        model: Model that is trained; gives table size and device.
        config: Settings of the run.
        batch_size: Sessions of a step, at most.
        passes: Number of passes; 0 for fine-tuning, which is one pass with its own learning rate.
    """
    fold_index = np.random.default_rng(config.seed).integers(config.folds, size=len(examples))  # (sessions,)
    folds = [np.flatnonzero(fold_index == fold) for fold in range(config.folds)]
    fold_pairs = [count_pairs(examples.select(fold), weights[fold]) for fold in folds]
    pairs = functools.reduce(add_counts, fold_pairs if earlier is None else [earlier, *fold_pairs])
    rows, limit, device = model.item.shape[0], config.model.neighbours, model.item.device
    steps = sum(math.ceil(sessions / batch_size) for sessions in np.bincount(fold_index).tolist())
    peak, warmup = (config.learning_rate, config.warmup) if passes else (config.top_up_rate, config.top_up_warmup)
    peak *= math.sqrt(batch_size / config.batch)  # noise of a gradient falls with the root of the batch
    return TrainingPass(
        examples=examples,
        fold_index=fold_index,
        neighbour_matrices=tuple(
            NeighbourMatrix(select_neighbours(subtract_counts(pairs, own_pairs), rows, limit), device)
            for own_pairs in fold_pairs
        ),
        pairs=pairs,
        neighbours=select_neighbours(pairs, rows, limit),
        batch_size=batch_size,
        steps=steps,
        events_per_step=len(examples.items) / steps,
        labels_per_step=max(1, int((examples.next_item > NO_NEXT_ITEM).sum())) / steps,
        rates=LearningRates(steps * max(1, passes), peak, warmup),
        config=config,
    )


def train_pass(
    model: SessionTransformer,
    optimizer: torch.optim.Optimizer,
    training_pass: TrainingPass,
    *,
    number: int,
    on_step: Callable[[float], None],
) -> float:
    """Train on each session once, with the neighbours of its fold, and return the mean loss.

    Args:
        model: Model that is trained.
        optimizer: Optimizer of its weights.
        training_pass: Sessions, neighbours and learning rates.
        number: Number of the pass, from 1. Batch order and dropout depend on this number and the seed alone.
        on_step: Called after each step with the mean loss so far.
    """
    config = training_pass.config
    torch.manual_seed(int(np.random.default_rng((config.seed, number)).integers(2**63)))
    model.train()
    clipped = [parameter for name, parameter in model.named_parameters() if name != "item"]
    first_step = training_pass.steps * (number - 1) % training_pass.rates.steps  # 0 for fine-tuning: its only pass
    total = 0.0
    lengths, batch_size = training_pass.examples.lengths, training_pass.batch_size
    batches = shuffle_fold_batches(training_pass.fold_index, lengths, batch_size, (config.seed, number))
    for step, (fold, sessions) in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = training_pass.rates.rate(first_step + step)
        loss = compute_loss(model, model.table(training_pass.neighbour_matrices[fold]), training_pass, sessions)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(clipped, MAX_GRADIENT_NORM)
        optimizer.step()
        total += loss.item()
        on_step(total / (step + 1))
    return total / training_pass.steps


def compute_loss(model: SessionTransformer, table: Tensor, training_pass: TrainingPass, sessions: Longs) -> Tensor:
    """Return the training loss of a batch of sessions.

    L = sum CE(next item) / labels_per_step + (w_a sum CE(next action) + w_p sum BCE(purchase)) / events_per_step.
    Sums are divided by the counts of a mean step, not of this batch: a batch holds sessions of similar length, and a
    mean over the batch would give the events of short sessions a larger weight.

    Args:
        model: Model in training mode.
        table: Item vectors for the fold of the sessions: (V, D).
        training_pass: Examples and settings.
        sessions: Indices of the batch's sessions: (B,).
    """
    examples, config = training_pass.examples, training_pass.config
    batch = pad_sessions(examples, sessions)
    events = locate_events(examples, sessions)  # (n,): all events of the batch
    items, actions, next_item, next_action, purchase = (
        torch.from_numpy(values.astype(np.int64)).to(table.device)
        for values in (
            batch.items,
            batch.actions,
            examples.next_item[events],
            examples.next_action[events],
            examples.purchase[events],
        )
    )  # (B, T) each, then (n,) each
    is_event = items > 0  # (B, T): False for padding
    vectors, item_vectors = model(table, items, actions)  # (B, T, D) each

    has_label = is_event.clone()  # (B, T): events that a known item follows
    has_label[is_event] = next_item > NO_NEXT_ITEM
    queries: Queries = model.queries(vectors, item_vectors, items, has_label)
    item_loss = catalogue_loss(queries, table, next_item[next_item > NO_NEXT_ITEM], fast_dtype(table.device))
    vectors = vectors[is_event]  # (n, D)
    action_loss = functional.cross_entropy(model.action_logits(vectors), next_action, reduction="sum")
    purchase_loss = functional.binary_cross_entropy_with_logits(
        model.purchase_logit(vectors), purchase.float(), reduction="sum"
    )
    heads_loss = config.next_action_weight * action_loss + config.purchase_weight * purchase_loss
    return item_loss / training_pass.labels_per_step + heads_loss / training_pass.events_per_step


def choose_batch_size(sessions: int, steps: int, config: TrainConfig) -> int:
    """Return the sessions of a step, so that a pass has `steps` steps if the limits allow.

    Args:
        sessions: Sessions of the pass.
        steps: Steps that a pass should have.
        config: Gives the largest batch; `MIN_BATCH_SESSIONS` is the smallest.
    """
    return min(config.batch, max(MIN_BATCH_SESSIONS, sessions // steps))


def make_optimizer(model: SessionTransformer, config: TrainConfig) -> torch.optim.AdamW:
    """Return AdamW with weight decay for the matrices of blocks and heads alone."""
    decayed: list[Tensor] = []
    undecayed: list[Tensor] = []
    for name, parameter in model.named_parameters():
        is_matrix = parameter.ndim == 2 and name not in UNDECAYED_TABLES and not name.endswith("distance")
        (decayed if is_matrix else undecayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": undecayed, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=ADAM_BETAS, fused=True)
