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
    Checkpoint,
    EpochResult,
    TrainingRecord,
    load_model,
    load_tensors,
    read_record,
    save_model,
    save_pairs,
    save_stack,
    save_tensors,
    start_checkpoint,
    write_record,
)
from clickscore.model.config import TrainConfig, settle_epochs
from clickscore.model.dataset import Dataset, FineTuningData
from clickscore.model.errors import TrainingError
from clickscore.model.features import (
    NO_NEXT_ITEM,
    Examples,
    Ints,
    Longs,
    locate_events,
    pad_sessions,
    shuffle_fold_batches,
)
from clickscore.model.head_training import BlendedHeads, blend_held_out, fit_heads, recalibrate, refit_heads
from clickscore.model.loss import Queries, catalogue_loss, fast_dtype
from clickscore.model.neighbours import (
    Neighbours,
    PairCounts,
    add_counts,
    count_pairs,
    decay_counts,
    select_neighbours,
    subtract_counts,
    weigh_by_age,
)
from clickscore.model.predict import CUTOFF, compute_metrics, evaluate_model, predict_sessions
from clickscore.model.transformer import NeighbourMatrix, SessionTransformer
from clickscore.model.vocabulary import POPULAR

ADAM_BETAS = (0.9, 0.98)
MAX_GRADIENT_NORM = 1.0
"""Largest length of the gradient of all but the item table, whose rows Adam keeps in bounds one by one."""
FINAL_RATE_SHARE = 0.02
"""Learning rate at the end, as a share of the peak."""
MIN_BATCH = 16
STOPPING_METRIC = f"mrr@{CUTOFF}"
"""What says when to stop."""
UNDECAYED_TABLES = {"item", "action.weight", "repeats.table"}
"""Matrices without weight decay, beside those of distances."""


def train(dataset: Dataset, config: TrainConfig, folder: Path, console: Console) -> TrainingRecord:
    """Train a model, or go on with a training that was killed, and return its record.

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
    record, model = fit(dataset, config, folder, console, lambda _: None)
    if record.finished:
        return record

    # Calibrate the best, measure it on the newest sessions, then let it learn them
    config = record.config
    table = _table(model, load_model(folder / "best.pt", model))
    ask = functools.partial(predict_sessions, model.eval(), table)
    heads = fit_heads(dataset, ask, config)
    measured = compute_metrics(blend_held_out(heads, dataset, ask(dataset.held_out)), dataset.held_out)
    record = msgspec.structs.replace(record, calibration=heads.calibration, held_out_metrics=measured)
    if stack := refit_heads(heads, dataset, config):
        save_stack(folder, stack)
    first = len(dataset.training) - round(config.top_up_share * len(dataset.training))
    older, newest = np.split(np.arange(len(dataset.sessions)), [first])
    weights = weigh_by_age(len(dataset.sessions), config.neighbours_half)
    pairs = count_pairs(dataset.sessions.select(older), weights[older])
    batch = _batch_size(len(dataset.training), config.steps, config)
    record = msgspec.structs.replace(record, counted_sessions=len(dataset.sessions))
    with _progress(console) as progress:
        last = prepare_pass(dataset.sessions.select(newest), weights[newest], pairs, model, config, batch=batch)
        return _run_fine_tuning(model, last, record, folder, progress)


def fit(
    dataset: Dataset, config: TrainConfig, folder: Path, console: Console, told: Callable[[EpochResult], None]
) -> tuple[TrainingRecord, SessionTransformer]:
    """Do the epochs of `train` alone, and return the record with what they brought, and the model.

    Args:
        dataset: As there.
        config: As there.
        folder: As there.
        console: As there.
        told: Called after each epoch; whatever it raises ends the training.

    Raises:
        TrainingError: As there.
    """
    config = settle_epochs(config, len(dataset.training))
    record = _start_or_read(
        folder, TrainingRecord(config=config, report=dataset.report, popular_items=dataset.vocabulary.items[:POPULAR])
    )
    torch.manual_seed(config.seed)
    model = SessionTransformer(config.model, len(dataset.vocabulary)).to(_device())
    if record.finished:
        return record, model
    optimizer = _optimizer(model, config)
    record = _resume(folder, record, dataset, model, optimizer)
    batch = _batch_size(len(dataset.training), config.steps, config)
    weights = weigh_by_age(len(dataset.training), config.neighbours_half)
    training_pass = prepare_pass(dataset.training, weights, None, model, config, batch=batch, passes=config.epochs)

    with _progress(console) as progress:
        done = training_pass.steps * len(record.epochs)
        task = progress.add_task("", total=training_pass.rates.steps, completed=done, loss="", mrr="")
        while not _is_finished(record):
            number = len(record.epochs) + 1
            progress.update(task, description=f"epoch {number} of {config.epochs}")
            loss = train_pass(model, optimizer, training_pass, number=number, tell=_step_reporter(progress, task))

            # See how good it is now
            measured = evaluate_model(model.eval(), _table(model, training_pass.neighbours), dataset.validation)
            epoch = EpochResult(number=number, loss=loss, metrics=measured)
            progress.update(task, mrr=f"validation {STOPPING_METRIC} {measured[STOPPING_METRIC]:.4f}")
            progress.console.print(
                f"epoch {number}: loss {epoch.loss:.4f}, validation hit_rate@{CUTOFF} "
                f"{measured[f'hit_rate@{CUTOFF}']:.4f}, "
                f"{STOPPING_METRIC} {measured[STOPPING_METRIC]:.4f}, purchase_pr_auc {measured['purchase_pr_auc']:.4f}"
            )

            # Keep the best, then what is needed to go on
            is_best = (
                not record.best_epoch
                or measured[STOPPING_METRIC] > record.epochs[record.best_epoch - 1].metrics[STOPPING_METRIC]
            )
            best = number if is_best else record.best_epoch
            record = msgspec.structs.replace(record, epochs=(*record.epochs, epoch), best_epoch=best)
            if is_best:
                save_model(folder / "best.pt", model, training_pass.neighbours)
            _save(folder, record, model, optimizer)
            told(epoch)
    return record, model


def fine_tune(
    previous: Checkpoint, pairs: PairCounts, newer: FineTuningData, folder: Path, *, lineage: str, console: Console
) -> TrainingRecord:
    """Teach a trained model newer sessions, in one pass, and return the record of what comes out.

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
    learned, new = previous.record.counted_sessions, len(newer.sessions)
    if not learned:
        message = "the model comes from a version that did not count neighbours by age: train it anew"
        raise TrainingError(message)
    config, lineages = previous.record.config, (*previous.record.lineage, lineage)
    fresh = TrainingRecord(
        config=config, report=newer.report, popular_items=previous.record.popular_items, lineage=lineages
    )
    record = _start_or_read(folder, fresh)
    if record.finished:
        return record
    ask = functools.partial(predict_sessions, previous.model.eval(), previous.table())
    answers = ask(newer.sample)
    calibration, stack = previous.record.calibration, previous.stack
    if calibration:
        heads = BlendedHeads(calibration=calibration, stack=stack, max_length=config.model.max_length)
        answers, calibration = recalibrate(heads, newer, ask)
    measured = compute_metrics(answers, newer.sample)
    record = msgspec.structs.replace(
        record, calibration=calibration, held_out_metrics=measured, counted_sessions=learned + new
    )
    start_checkpoint(folder, record, newer.vocabulary, newer.sample)
    if stack:
        save_stack(folder, stack.grow(len(newer.vocabulary)))
    torch.manual_seed(config.seed)
    model = previous.model.grow(len(newer.vocabulary)).to(_device())
    batch = _batch_size(new, config.top_up_steps, config)
    weights = weigh_by_age(learned + new, config.neighbours_half)[learned:]
    older = decay_counts(pairs, new / (learned + new), config.neighbours_half)
    with _progress(console) as progress:
        training_pass = prepare_pass(newer.sessions, weights, older, model, config, batch=batch)
        return _run_fine_tuning(model, training_pass, record, folder, progress)


class LearningRates(NamedTuple):
    """Learning rates: a straight line up, then half a cosine down."""

    steps: int
    peak: float
    warmup: int

    def rate(self, step: int) -> float:
        """Return the rate of a step, from 0."""
        warmup = min(self.warmup, self.steps // 10)
        done = (step - warmup) / max(1, self.steps - warmup)
        cosine = FINAL_RATE_SHARE + (1 - FINAL_RATE_SHARE) * (1 + math.cos(math.pi * done)) / 2
        return self.peak * ((step + 1) / (warmup + 1) if step < warmup else cosine)


class TrainingPass(NamedTuple):
    """Sessions to be learned, in folds, and for each fold the neighbours in all sessions but its own.

    A session that met its own pairs among the neighbours would find each next item next to the last one, and learn to
    rely on that.
    """

    of: Examples
    fold_of: Ints
    """(sessions,)."""
    mixings: tuple[NeighbourMatrix, ...]
    """Of each fold."""
    pairs: PairCounts
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
    rates: LearningRates
    """Of all passes."""
    config: TrainConfig


def prepare_pass(
    of: Examples,
    weights: Longs,
    older: PairCounts | None,
    model: SessionTransformer,
    config: TrainConfig,
    *,
    batch: int,
    passes: int = 0,
) -> TrainingPass:
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
    parts = [count_pairs(of.select(fold), weights[fold]) for fold in folds]
    pairs = functools.reduce(add_counts, parts if older is None else [older, *parts])
    rows, most = model.item.shape[0], config.model.neighbours
    steps = sum(math.ceil(number / batch) for number in np.bincount(fold_of).tolist())
    peak, warmup = (config.learning_rate, config.warmup) if passes else (config.top_up_rate, config.top_up_warmup)
    return TrainingPass(
        of=of,
        fold_of=fold_of,
        mixings=tuple(
            NeighbourMatrix(select_neighbours(subtract_counts(pairs, part), rows, most), model.item.device)
            for part in parts
        ),
        pairs=pairs,
        neighbours=select_neighbours(pairs, rows, most),
        batch=batch,
        steps=steps,
        events=len(of.items) / steps,
        followed=max(1, int((of.next_item > NO_NEXT_ITEM).sum())) / steps,
        rates=LearningRates(steps * max(1, passes), peak * math.sqrt(batch / config.batch), warmup),
        config=config,
    )


def _run_fine_tuning(
    model: SessionTransformer, training_pass: TrainingPass, record: TrainingRecord, folder: Path, progress: Progress
) -> TrainingRecord:
    """Learn the newest sessions in one pass, and write the finished checkpoint."""
    optimizer, number = _optimizer(model, training_pass.config), training_pass.config.epochs + 1
    task = progress.add_task("top-up", total=training_pass.steps, loss="", mrr="")
    train_pass(model, optimizer, training_pass, number=number, tell=_step_reporter(progress, task))
    save_model(folder / "weights.pt", model, training_pass.neighbours)
    save_pairs(folder, training_pass.pairs)
    record = msgspec.structs.replace(record, finished=True)
    write_record(folder, record)
    for name in ("best.pt", "training.pt"):
        (folder / name).unlink(missing_ok=True)
    return record


def train_pass(
    model: SessionTransformer,
    optimizer: torch.optim.Optimizer,
    training_pass: TrainingPass,
    *,
    number: int,
    tell: Callable[[float], None],
) -> float:
    """Learn from each session once, with the neighbours of its fold, and return the mean loss.

    Args:
        model: What learns.
        optimizer: Of its weights.
        training_pass: What is learned.
        number: Of the pass, from 1: what is drawn in it depends on that and the seed alone.
        tell: Called after each step with the mean loss so far.
    """
    config = training_pass.config
    torch.manual_seed(int(np.random.default_rng((config.seed, number)).integers(2**63)))
    model.train()
    small = [parameter for name, parameter in model.named_parameters() if name != "item"]
    done = (
        training_pass.steps * (number - 1) % training_pass.rates.steps
    )  # a top-up is the only pass of its training_pass
    total = 0.0
    order = shuffle_fold_batches(
        training_pass.fold_of, training_pass.of.lengths, training_pass.batch, (config.seed, number)
    )
    for step, (fold, sessions) in enumerate(order):
        for group in optimizer.param_groups:
            group["lr"] = training_pass.rates.rate(done + step)
        loss = compute_loss(model, model.table(training_pass.mixings[fold]), training_pass, sessions)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(small, MAX_GRADIENT_NORM)
        optimizer.step()
        total += loss.item()
        tell(total / (step + 1))
    return total / training_pass.steps


def compute_loss(model: SessionTransformer, table: Tensor, training_pass: TrainingPass, sessions: Longs) -> Tensor:
    """Return the weighted loss of the three heads, each summed over events and divided by those of a usual step.

    Sessions of a batch are of like length: a mean over the batch would make an event of a short one count more.
    """
    of, config = training_pass.of, training_pass.config
    batch = pad_sessions(of, sessions)
    at = locate_events(of, sessions)
    items, actions, next_item, next_action, purchase = (
        torch.from_numpy(values.astype(np.int64)).to(table.device)
        for values in (batch.items, batch.actions, of.next_item[at], of.next_action[at], of.purchase[at])
    )  # (B, T) each, then (n,) each
    real = items > 0  # (B, T)
    vectors, of_items = model(table, items, actions)  # (B, T, D) each

    followed = real.clone()
    followed[real] = next_item > 0
    queries: Queries = model.queries(vectors, of_items, items, followed)
    item_loss = catalogue_loss(queries, table, next_item[next_item > 0], fast_dtype(table.device))
    vectors = vectors[real]  # (n, D)
    action_loss = functional.cross_entropy(model.action_logits(vectors), next_action, reduction="sum")
    purchase_loss = functional.binary_cross_entropy_with_logits(
        model.purchase_logit(vectors), purchase.float(), reduction="sum"
    )
    heads_loss = config.next_action_weight * action_loss + config.purchase_weight * purchase_loss
    return item_loss / training_pass.followed + heads_loss / training_pass.events


@torch.inference_mode()
def _table(model: SessionTransformer, neighbours: Neighbours) -> Tensor:
    """Return the vectors of all items as they are served: (V, D)."""
    return model.table(NeighbourMatrix(neighbours, model.item.device))


def _batch_size(sessions: int, steps: int, config: TrainConfig) -> int:
    """Return how many sessions a step learns from, so that a pass has so many steps if it can."""
    return min(config.batch, max(MIN_BATCH, sessions // steps))


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _optimizer(model: SessionTransformer, config: TrainConfig) -> torch.optim.AdamW:
    """Return the optimizer, with weight decay for the matrices of blocks and heads alone."""
    parts: tuple[list[Tensor], list[Tensor]] = ([], [])
    for name, parameter in model.named_parameters():
        is_matrix = parameter.ndim == 2 and name not in UNDECAYED_TABLES and not name.endswith("distance")
        parts[not is_matrix].append(parameter)
    groups = [{"params": parts[0], "weight_decay": config.weight_decay}, {"params": parts[1], "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=ADAM_BETAS, fused=True)


def _is_finished(record: TrainingRecord) -> bool:
    """Return whether there is nothing more to be learned by another epoch."""
    number = len(record.epochs)
    return number == record.config.epochs or (number > 0 and number - record.best_epoch >= record.config.patience)


def _start_or_read(folder: Path, record: TrainingRecord) -> TrainingRecord:
    """Return the record of the training in the folder, or the given one where there is none.

    Raises:
        TrainingError: The folder holds another training, or something else.
    """
    found = read_record(folder)
    if found is None:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            message = f"{folder} holds something that is no checkpoint: name a new folder"
            raise TrainingError(message)
        return record
    if (found.config, found.report.sha256, found.lineage) != (record.config, record.report.sha256, record.lineage):
        message = f"{folder} holds a training with other settings or sessions: name a new folder, or remove it"
        raise TrainingError(message)
    return found


def _resume(
    folder: Path, record: TrainingRecord, dataset: Dataset, model: SessionTransformer, optimizer: torch.optim.Optimizer
) -> TrainingRecord:
    """Return the record of an unfinished training, with model and optimizer as its last epoch left them."""
    if not (folder / "training.pt").is_file():  # no epoch has ended
        start_checkpoint(folder, record, dataset.vocabulary, dataset.held_out)
        return record
    state = load_tensors(folder / "training.pt")
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    record = msgspec.json.decode(state["card"], type=TrainingRecord)
    write_record(folder, record)
    return record


def _save(folder: Path, record: TrainingRecord, model: SessionTransformer, optimizer: torch.optim.Optimizer) -> None:
    """Write what is needed to go on."""
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "card": msgspec.json.encode(record)}
    save_tensors(folder / "training.pt", state)
    write_record(folder, record)


def _step_reporter(progress: Progress, task: TaskID) -> Callable[[float], None]:
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
