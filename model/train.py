"""Train: one straight loop from sessions to weights, which goes on after a kill as if there had been none."""

# pyright: standard
# torch leaves what a module returns untyped.

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from torch import Tensor
from torch.nn import functional

from clickscore.model.checkpoint import (
    Card,
    Checkpoint,
    Epoch,
    load_model,
    load_tensors,
    read_card,
    save_model,
    save_pairs,
    save_stack,
    save_tensors,
    start_checkpoint,
    write_card,
)
from clickscore.model.config import TrainConfig, settled
from clickscore.model.dataset import Dataset, Newer
from clickscore.model.errors import TrainingError
from clickscore.model.features import NOTHING, Examples, Ints, Longs, cross_batches, events_of, padded
from clickscore.model.head_training import Heads, fit_heads, on_held_out, on_newer, refit
from clickscore.model.loss import Wishes, catalogue_loss, quickest
from clickscore.model.neighbours import Neighbours, Pairs, aged, by_age, count_pairs, nearest, together, without
from clickscore.model.predict import CUTOFF, compute_metrics, evaluate_model, predict_sessions
from clickscore.model.transformer import Mixing, SessionTransformer
from clickscore.model.vocabulary import POPULAR

BETAS = (0.9, 0.98)
CLIP = 1.0
"""Largest length of the gradient of all but the item table, whose rows Adam keeps in bounds one by one."""
LAST_RATE = 0.02
"""Learning rate at the end, as a share of the peak."""
SMALLEST_BATCH = 16
CRITERION = f"mrr@{CUTOFF}"
"""What says when to stop."""
TABLES = {"item", "action.weight", "repeats.table"}
"""Matrices without weight decay, beside those of distances."""


def train(dataset: Dataset, config: TrainConfig, folder: Path, console: Console) -> Card:
    """Train a model, or go on with a training that was killed, and return its card.

    After each epoch the folder holds the best model so far, and what is needed to go on from there. Order and dropout
    of an epoch depend on the seed and its number alone, so a training that goes on ends with the same weights. In the
    end the best model is topped up with the newest sessions, those that were kept from it included.

    Args:
        dataset: What it learns from.
        config: How.
        folder: Where the checkpoint lies, or will.
        console: Where progress is shown.

    Raises:
        TrainingError: The folder holds another training, or something else.
    """
    card, model = fit(dataset, config, folder, console, lambda _: None)
    if card.finished:
        return card

    # Calibrate the best, measure it on the newest sessions, then let it learn them
    config = card.config
    table = _table(model, load_model(folder / "best.pt", model))
    ask = functools.partial(predict_sessions, model.eval(), table)
    heads = fit_heads(dataset, ask, config)
    measured = compute_metrics(on_held_out(heads, dataset, ask(dataset.held_out)), dataset.held_out)
    card = msgspec.structs.replace(card, calibration=heads.calibration, measured=measured)
    if stack := refit(heads, dataset, config):
        save_stack(folder, stack)
    first = len(dataset.training) - round(config.top_up_share * len(dataset.training))
    older, newest = np.split(np.arange(len(dataset.sessions)), [first])
    weights = by_age(len(dataset.sessions), config.neighbours_half)
    pairs = count_pairs(dataset.sessions.only(older), weights[older])
    batch = _batch_size(len(dataset.training), config.steps, config)
    card = msgspec.structs.replace(card, learned=len(dataset.sessions))
    with _progress(console) as progress:
        last = _lesson(dataset.sessions.only(newest), weights[newest], pairs, model, config, batch=batch)
        return _top_up(model, last, card, folder, progress)


def fit(
    dataset: Dataset, config: TrainConfig, folder: Path, console: Console, told: Callable[[Epoch], None]
) -> tuple[Card, SessionTransformer]:
    """Do the epochs of `train` alone, and return the card with what they brought, and the model.

    Args:
        dataset: As there.
        config: As there.
        folder: As there.
        console: As there.
        told: Called after each epoch; whatever it raises ends the training.

    Raises:
        TrainingError: As there.
    """
    config = settled(config, len(dataset.training))
    card = _begun(folder, Card(config=config, report=dataset.report, popular=dataset.vocabulary.items[:POPULAR]))
    torch.manual_seed(config.seed)
    model = SessionTransformer(config.model, len(dataset.vocabulary)).to(_device())
    if card.finished:
        return card, model
    optimizer = _optimizer(model, config)
    card = _resume(folder, card, dataset, model, optimizer)
    batch = _batch_size(len(dataset.training), config.steps, config)
    weights = by_age(len(dataset.training), config.neighbours_half)
    lesson = _lesson(dataset.training, weights, None, model, config, batch=batch, passes=config.epochs)

    with _progress(console) as progress:
        done = lesson.steps * len(card.epochs)
        task = progress.add_task("", total=lesson.rates.steps, completed=done, loss="", mrr="")
        while not _has_ended(card):
            number = len(card.epochs) + 1
            progress.update(task, description=f"epoch {number} of {config.epochs}")
            loss = _learn(model, optimizer, lesson, number=number, tell=_teller(progress, task))

            # See how good it is now
            measured = evaluate_model(model.eval(), _table(model, lesson.neighbours), dataset.validation)
            epoch = Epoch(number=number, loss=loss, metrics=measured)
            progress.update(task, mrr=f"validation {CRITERION} {measured[CRITERION]:.4f}")
            progress.console.print(
                f"epoch {number}: loss {epoch.loss:.4f}, validation hit_rate@{CUTOFF} "
                f"{measured[f'hit_rate@{CUTOFF}']:.4f}, "
                f"{CRITERION} {measured[CRITERION]:.4f}, purchase_pr_auc {measured['purchase_pr_auc']:.4f}"
            )

            # Keep the best, then what is needed to go on
            is_best = not card.best or measured[CRITERION] > card.epochs[card.best - 1].metrics[CRITERION]
            best = number if is_best else card.best
            card = msgspec.structs.replace(card, epochs=(*card.epochs, epoch), best=best)
            if is_best:
                save_model(folder / "best.pt", model, lesson.neighbours)
            _save(folder, card, model, optimizer)
            told(epoch)
    return card, model


def top_up(previous: Checkpoint, pairs: Pairs, newer: Newer, folder: Path, *, lineage: str, console: Console) -> Card:
    """Teach a trained model newer sessions, in one pass, and return the card of what comes out.

    The neighbours are counted anew, over all sessions that either has seen, each by its age. What the model says of the
    newer sessions before it learns them is measured.

    Args:
        previous: The trained model.
        pairs: Which items met in its sessions.
        newer: Sessions that it has not seen.
        folder: Where the new checkpoint goes.
        lineage: What the trained model is, in words.
        console: Where progress is shown.

    Raises:
        TrainingError: The folder holds another training, or something else; or the model's version counted otherwise.
    """
    learned, new = previous.card.learned, len(newer.sessions)
    if not learned:
        message = "the model comes from a version that did not count neighbours by age: train it anew"
        raise TrainingError(message)
    config, lineages = previous.card.config, (*previous.card.lineage, lineage)
    fresh = Card(config=config, report=newer.report, popular=previous.card.popular, lineage=lineages)
    card = _begun(folder, fresh)
    if card.finished:
        return card
    ask = functools.partial(predict_sessions, previous.model.eval(), previous.table())
    answers = ask(newer.sample)
    calibration, stack = previous.card.calibration, previous.stack
    if calibration:
        heads = Heads(calibration=calibration, stack=stack, max_length=config.model.max_length)
        answers, calibration = on_newer(heads, newer, ask)
    measured = compute_metrics(answers, newer.sample)
    card = msgspec.structs.replace(card, calibration=calibration, measured=measured, learned=learned + new)
    start_checkpoint(folder, card, newer.vocabulary, newer.sample)
    if stack:
        save_stack(folder, stack.grown(len(newer.vocabulary)))
    torch.manual_seed(config.seed)
    model = previous.model.grown(len(newer.vocabulary)).to(_device())
    batch = _batch_size(new, config.top_up_steps, config)
    weights = by_age(learned + new, config.neighbours_half)[learned:]
    older = aged(pairs, new / (learned + new), config.neighbours_half)
    with _progress(console) as progress:
        lesson = _lesson(newer.sessions, weights, older, model, config, batch=batch)
        return _top_up(model, lesson, card, folder, progress)


class _Rates(NamedTuple):
    """Learning rates: a straight line up, then half a cosine down."""

    steps: int
    peak: float
    warmup: int

    def at(self, step: int) -> float:
        """Return the rate of a step, from 0."""
        warmup = min(self.warmup, self.steps // 10)
        done = (step - warmup) / max(1, self.steps - warmup)
        cosine = LAST_RATE + (1 - LAST_RATE) * (1 + math.cos(math.pi * done)) / 2
        return self.peak * ((step + 1) / (warmup + 1) if step < warmup else cosine)


class _Lesson(NamedTuple):
    """Sessions to be learned, in folds, and for each fold the neighbours in all sessions but its own.

    A session that met its own pairs among the neighbours would find each next item next to the last one, and learn to
    rely on that.
    """

    of: Examples
    fold_of: Ints
    """(sessions,)."""
    mixings: tuple[Mixing, ...]
    """Of each fold."""
    pairs: Pairs
    """Of all sessions, those learned before included."""
    neighbours: Neighbours
    """From them: what is served."""
    batch: int
    """Sessions a step, at most."""
    steps: int
    """Of a pass."""
    events: float
    """Of a step, on average."""
    followed: float
    """Those of them that a known item follows."""
    rates: _Rates
    """Of all passes."""
    config: TrainConfig


def _lesson(
    of: Examples,
    weights: Longs,
    older: Pairs | None,
    model: SessionTransformer,
    config: TrainConfig,
    *,
    batch: int,
    passes: int = 0,
) -> _Lesson:
    """Return sessions as something to be learned.

    Args:
        of: The sessions.
        weights: What a meeting in each of them counts: (sessions,).
        older: Which items met in sessions that were learned before: neighbours in every fold.
        model: What will learn them.
        config: How.
        batch: Sessions a step, at most.
        passes: How often they are learned; 0 for a top-up, which is one pass at its own rate.
    """
    fold_of = np.random.default_rng(config.seed).integers(config.folds, size=len(of))  # (sessions,)
    folds = [np.flatnonzero(fold_of == fold) for fold in range(config.folds)]
    parts = [count_pairs(of.only(fold), weights[fold]) for fold in folds]
    pairs = functools.reduce(together, parts if older is None else [older, *parts])
    rows, most = model.item.shape[0], config.model.neighbours
    steps = sum(math.ceil(number / batch) for number in np.bincount(fold_of).tolist())
    peak, warmup = (config.learning_rate, config.warmup) if passes else (config.top_up_rate, config.top_up_warmup)
    return _Lesson(
        of=of,
        fold_of=fold_of,
        mixings=tuple(Mixing(nearest(without(pairs, part), rows, most), model.item.device) for part in parts),
        pairs=pairs,
        neighbours=nearest(pairs, rows, most),
        batch=batch,
        steps=steps,
        events=len(of.items) / steps,
        followed=max(1, int((of.next_item > NOTHING).sum())) / steps,
        rates=_Rates(steps * max(1, passes), peak * math.sqrt(batch / config.batch), warmup),
        config=config,
    )


def _top_up(model: SessionTransformer, lesson: _Lesson, card: Card, folder: Path, progress: Progress) -> Card:
    """Learn the newest sessions in one pass, and write the finished checkpoint."""
    optimizer, number = _optimizer(model, lesson.config), lesson.config.epochs + 1
    task = progress.add_task("top-up", total=lesson.steps, loss="", mrr="")
    _learn(model, optimizer, lesson, number=number, tell=_teller(progress, task))
    save_model(folder / "weights.pt", model, lesson.neighbours)
    save_pairs(folder, lesson.pairs)
    card = msgspec.structs.replace(card, finished=True)
    write_card(folder, card)
    for name in ("best.pt", "training.pt"):
        (folder / name).unlink(missing_ok=True)
    return card


def _learn(
    model: SessionTransformer,
    optimizer: torch.optim.Optimizer,
    lesson: _Lesson,
    *,
    number: int,
    tell: Callable[[float], None],
) -> float:
    """Learn from each session once, with the neighbours of its fold, and return the mean loss.

    Args:
        model: What learns.
        optimizer: Of its weights.
        lesson: What is learned.
        number: Of the pass, from 1: what is drawn in it depends on that and the seed alone.
        tell: Called after each step with the mean loss so far.
    """
    config = lesson.config
    torch.manual_seed(int(np.random.default_rng((config.seed, number)).integers(2**63)))
    model.train()
    small = [parameter for name, parameter in model.named_parameters() if name != "item"]
    done = lesson.steps * (number - 1) % lesson.rates.steps  # a top-up is the only pass of its lesson
    total = 0.0
    order = cross_batches(lesson.fold_of, lesson.of.lengths, lesson.batch, (config.seed, number))
    for step, (fold, sessions) in enumerate(order):
        for group in optimizer.param_groups:
            group["lr"] = lesson.rates.at(done + step)
        loss = _loss(model, model.table(lesson.mixings[fold]), lesson, sessions)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(small, CLIP)
        optimizer.step()
        total += loss.item()
        tell(total / (step + 1))
    return total / lesson.steps


def _loss(model: SessionTransformer, table: Tensor, lesson: _Lesson, sessions: Longs) -> Tensor:
    """Return the weighted loss of the three heads, each summed over events and divided by those of a usual step.

    Sessions of a batch are of like length: a mean over the batch would make an event of a short one count more.
    """
    of, config = lesson.of, lesson.config
    batch = padded(of, sessions)
    at = events_of(of, sessions)
    items, actions, next_item, next_action, purchase = (
        torch.from_numpy(values.astype(np.int64)).to(table.device)
        for values in (batch.items, batch.actions, of.next_item[at], of.next_action[at], of.purchase[at])
    )  # (B, T) each, then (n,) each
    real = items > 0  # (B, T)
    vectors, of_items = model(table, items, actions)  # (B, T, D) each

    followed = real.clone()
    followed[real] = next_item > 0
    wishes: Wishes = model.wishes(vectors, of_items, items, followed)
    item_loss = catalogue_loss(wishes, table, next_item[next_item > 0], quickest(table.device))
    vectors = vectors[real]  # (n, D)
    action_loss = functional.cross_entropy(model.action_logits(vectors), next_action, reduction="sum")
    purchase_loss = functional.binary_cross_entropy_with_logits(
        model.purchase_logit(vectors), purchase.float(), reduction="sum"
    )
    heads_loss = config.next_action_weight * action_loss + config.purchase_weight * purchase_loss
    return item_loss / lesson.followed + heads_loss / lesson.events


@torch.inference_mode()
def _table(model: SessionTransformer, neighbours: Neighbours) -> Tensor:
    """Return the vectors of all items as they are served: (V, D)."""
    return model.table(Mixing(neighbours, model.item.device))


def _batch_size(sessions: int, steps: int, config: TrainConfig) -> int:
    """Return how many sessions a step learns from, so that a pass has so many steps if it can."""
    return min(config.batch, max(SMALLEST_BATCH, sessions // steps))


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _optimizer(model: SessionTransformer, config: TrainConfig) -> torch.optim.AdamW:
    """Return the optimizer, with weight decay for the matrices of blocks and heads alone."""
    parts: tuple[list[Tensor], list[Tensor]] = ([], [])
    for name, parameter in model.named_parameters():
        is_matrix = parameter.ndim == 2 and name not in TABLES and not name.endswith("distance")
        parts[not is_matrix].append(parameter)
    groups = [{"params": parts[0], "weight_decay": config.weight_decay}, {"params": parts[1], "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=BETAS, fused=True)


def _has_ended(card: Card) -> bool:
    """Return whether there is nothing more to be learned by another epoch."""
    number = len(card.epochs)
    return number == card.config.epochs or (number > 0 and number - card.best >= card.config.patience)


def _begun(folder: Path, card: Card) -> Card:
    """Return the card of the training in the folder, or the given one where there is none.

    Raises:
        TrainingError: The folder holds another training, or something else.
    """
    found = read_card(folder)
    if found is None:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            message = f"{folder} holds something that is no checkpoint: name a new folder"
            raise TrainingError(message)
        return card
    if (found.config, found.report.sha256, found.lineage) != (card.config, card.report.sha256, card.lineage):
        message = f"{folder} holds a training with other settings or sessions: name a new folder, or remove it"
        raise TrainingError(message)
    return found


def _resume(
    folder: Path, card: Card, dataset: Dataset, model: SessionTransformer, optimizer: torch.optim.Optimizer
) -> Card:
    """Return the card of an unfinished training, with model and optimizer as its last epoch left them."""
    if not (folder / "training.pt").is_file():  # no epoch has ended
        start_checkpoint(folder, card, dataset.vocabulary, dataset.held_out)
        return card
    state = load_tensors(folder / "training.pt")
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    card = msgspec.json.decode(state["card"], type=Card)
    write_card(folder, card)
    return card


def _save(folder: Path, card: Card, model: SessionTransformer, optimizer: torch.optim.Optimizer) -> None:
    """Write what is needed to go on."""
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "card": msgspec.json.encode(card)}
    save_tensors(folder / "training.pt", state)
    write_card(folder, card)


def _teller(progress: Progress, task: TaskID) -> Callable[[float], None]:
    """Return what moves a task on by a step and shows its loss."""
    return lambda loss: progress.update(task, advance=1, loss=f"loss {loss:.3f}")


def _progress(console: Console) -> Progress:
    columns = ("{task.description}", "{task.fields[loss]}", "{task.fields[mrr]}")
    return Progress(
        *(TextColumn(text) for text in columns[:1]),
        BarColumn(),
        MofNCompleteColumn(),
        *(TextColumn(text) for text in columns[1:]),
        TimeRemainingColumn(),
        console=console,
    )
