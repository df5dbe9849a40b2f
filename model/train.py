"""Train: epochs with early stopping, calibration, a final pass over the newest sessions; warm start by fine-tuning.

A training that was killed continues from its last epoch and ends with the same weights.
"""

# pyright: standard
# torch does not type the result of a module.

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec
import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from clickscore.model.array_types import Longs
from clickscore.model.checkpoint import (
    Checkpoint,
    EpochResult,
    TrainingRecord,
    load_model,
    load_tensors,
    read_record,
    save_model,
    save_pairs,
    save_sessions,
    save_stack,
    save_tensors,
    start_checkpoint,
    write_record,
)
from clickscore.model.config import TrainConfig, settle_epochs
from clickscore.model.dataset import Dataset, FineTuningData
from clickscore.model.errors import TrainingError
from clickscore.model.head_training import BlendedHeads, blend_held_out, fit_heads, recalibrate, refit_heads
from clickscore.model.neighbour_factor import choose_factor
from clickscore.model.neighbours import (
    Neighbours,
    PairCounts,
    add_counts,
    count_pairs,
    decay_counts,
    select_neighbours,
    weigh_by_age,
)
from clickscore.model.predict import (
    CUTOFF,
    RANKING_SCORE,
    compute_metrics,
    evaluate_model,
    predict_sessions,
    ranking_score,
)
from clickscore.model.session_neighbours import IndexedSessions, index_sessions, open_index
from clickscore.model.stack import MAX_ROWS
from clickscore.model.training_pass import TrainingPass, choose_batch_size, make_optimizer, prepare_pass, train_pass
from clickscore.model.training_progress import TrainingProgress, WorkPlan
from clickscore.model.transformer import NeighbourMatrix, SessionTransformer
from clickscore.model.vocabulary import POPULAR_ITEMS

FORWARD_SHARE = 0.4
"""Time to validate on an event, as a share of the time to train on the event; roughly, for the first epoch."""


def train(dataset: Dataset, config: TrainConfig, folder: Path, console: Console) -> TrainingRecord:
    """Train a model, or continue a training that was killed, and return its record.

    After each epoch the folder holds the best model so far and the state to continue from. Batch order and dropout of
    an epoch depend on the seed and the epoch's number alone, so a continued training ends with the same weights. At
    the end the best model is fine-tuned on the newest sessions, validation and held-out sessions included.

    Args:
        dataset: Sessions for training, validation and held-out metrics.
        config: Settings of model and run.
        folder: Checkpoint folder, new or of an unfinished training.
        console: Console for progress and results.

    Raises:
        TrainingError: The folder holds another training, or files that are no checkpoint.
    """
    record, model = fit(dataset, config, folder, console, lambda _: None, is_complete=True)
    if record.finished:
        return record

    # Calibrate the best epoch's heads on validation and measure them on held-out sessions
    config = record.config
    console.print("fitting and calibrating the heads for next action and purchase")
    table = _make_table(model, load_model(folder / "best.pt", model))
    predict = functools.partial(predict_sessions, model.eval(), table)
    heads = fit_heads(dataset, predict, config)
    factor, gain = choose_factor(model, table, dataset.training, dataset.validation)
    neighbours = None
    if factor:
        console.print(f"session neighbours: factor {factor:g}, validation {RANKING_SCORE} {gain:+.4f}")
        neighbours = open_index(IndexedSessions(index_sessions(dataset.training), factor), len(table))
        save_sessions(folder, IndexedSessions(index_sessions(dataset.sessions), factor))
    predictions = blend_held_out(heads, dataset, predict(dataset.held_out, neighbours))
    metrics = compute_metrics(predictions, dataset.held_out)
    record = msgspec.structs.replace(record, calibration=heads.calibration, held_out_metrics=metrics)
    if stack := refit_heads(heads, dataset, config):
        save_stack(folder, stack)

    # Final pass: train on the newest sessions, with co-occurrence counts of all sessions
    first = len(dataset.training) - round(config.top_up_share * len(dataset.training))
    older, newest = np.split(np.arange(len(dataset.sessions)), [first])
    weights = weigh_by_age(len(dataset.sessions), config.neighbours_half)
    older_pairs = count_pairs(dataset.sessions.select(older), weights[older])
    batch_size = choose_batch_size(len(dataset.training), config.steps, config)
    record = msgspec.structs.replace(record, counted_sessions=len(dataset.sessions))
    final_pass = prepare_pass(
        dataset.sessions.select(newest), weights[newest], older_pairs, model, config, batch_size=batch_size
    )
    return _run_final_pass(model, final_pass, record, folder, console)


def fit(
    dataset: Dataset,
    config: TrainConfig,
    folder: Path,
    console: Console,
    on_epoch: Callable[[EpochResult], None],
    *,
    is_complete: bool = False,
) -> tuple[TrainingRecord, SessionTransformer]:
    """Run the epochs of `train` alone, and return the record so far and the model after the last epoch.

    Args:
        dataset: Sessions for training and validation.
        config: Settings of model and run.
        folder: Checkpoint folder, new or of an unfinished training.
        console: Console for progress and results.
        on_epoch: Called after each epoch; an exception of this function ends the training.
        is_complete: Whether heads and final pass follow, which the printed time then covers.

    Raises:
        TrainingError: The folder holds another training, or files that are no checkpoint.
    """
    config = settle_epochs(config, len(dataset.training))
    popular_items = dataset.vocabulary.items[:POPULAR_ITEMS]
    record = _read_or_start(folder, TrainingRecord(config=config, report=dataset.report, popular_items=popular_items))
    torch.manual_seed(config.seed)
    model = SessionTransformer(config.model, len(dataset.vocabulary)).to(_device())
    if record.finished:
        return record, model
    optimizer = make_optimizer(model, config)
    record = _resume(folder, record, dataset, model, optimizer)
    batch_size = choose_batch_size(len(dataset.training), config.steps, config)
    weights = weigh_by_age(len(dataset.training), config.neighbours_half)
    training_pass = prepare_pass(
        dataset.training, weights, None, model, config, batch_size=batch_size, passes=config.epochs
    )

    plan = _plan_work(dataset, training_pass, is_complete=is_complete)
    with TrainingProgress(console, plan, epochs_done=len(record.epochs)) as progress:
        while not _is_finished(record):
            number = len(record.epochs) + 1
            progress.start(f"epoch {number} of {config.epochs}")
            loss = train_pass(model, optimizer, training_pass, number=number, on_step=progress.advance)

            # Measure on validation
            metrics = evaluate_model(model.eval(), _make_table(model, training_pass.neighbours), dataset.validation)
            epoch = EpochResult(number=number, loss=loss, metrics=metrics)
            progress.end_validation(f"validation mrr@{CUTOFF} {metrics[f'mrr@{CUTOFF}']:.4f}")
            console.print(f"epoch {number}: loss {epoch.loss:.4f}, validation {format_metrics(metrics)}")

            # Save the best weights, then the state to continue from
            best = record.best_epoch
            is_best = not best or ranking_score(metrics) > ranking_score(record.epochs[best - 1].metrics)
            record = msgspec.structs.replace(
                record, epochs=(*record.epochs, epoch), best_epoch=number if is_best else best
            )
            if is_best:
                save_model(folder / "best.pt", model, training_pass.neighbours)
            _save_state(folder, record, model, optimizer)
            on_epoch(epoch)
    return record, model


def fine_tune(
    previous: Checkpoint, pairs: PairCounts, newer: FineTuningData, folder: Path, *, lineage: str, console: Console
) -> TrainingRecord:
    """Fine-tune a trained model on newer sessions in one pass (a warm start), and return the new record.

    Co-occurrences of the old sessions are decayed by the share of newer sessions, and those of the newer sessions are
    added. The metrics in the record are measured on the newer sessions before the model trains on them.

    Args:
        previous: Trained model.
        pairs: Co-occurrence counts of the trained model's sessions.
        newer: Sessions that the model has not trained on.
        folder: Folder of the new checkpoint.
        lineage: Description of the trained model.
        console: Console for progress.

    Raises:
        TrainingError: The folder holds another training, or files that are no checkpoint; or the model comes from a
            version without decayed counts.
    """
    record = _begin_warm_start(previous, newer, folder, lineage)
    if record.finished:
        return record
    config, added = record.config, len(newer.sessions)
    torch.manual_seed(config.seed)
    model = previous.model.grow(len(newer.vocabulary)).to(_device())
    batch_size = choose_batch_size(added, config.top_up_steps, config)
    weights, older_pairs = _weigh(newer, pairs, record)
    final_pass = prepare_pass(newer.sessions, weights, older_pairs, model, config, batch_size=batch_size)
    return _run_final_pass(model, final_pass, record, folder, console)


def refresh_neighbours(
    previous: Checkpoint, pairs: PairCounts, newer: FineTuningData, folder: Path, *, lineage: str
) -> TrainingRecord:
    """Count the neighbours again with newer sessions, without training, and return the new record.

    The weights stay, and new items get the vectors of their neighbours. It takes seconds, so it can be done often.

    Args:
        previous: Trained model.
        pairs: Co-occurrence counts of the trained model's sessions.
        newer: Sessions that the model has not counted.
        folder: Folder of the new checkpoint.
        lineage: Description of the trained model.

    Raises:
        TrainingError: The folder holds another training, or files that are no checkpoint; or the model comes from a
            version without decayed counts.
    """
    record = _begin_warm_start(previous, newer, folder, lineage)
    if record.finished:
        return record
    weights, older_pairs = _weigh(newer, pairs, record)
    model = previous.model.grow(len(newer.vocabulary))
    all_pairs = add_counts(older_pairs, count_pairs(newer.sessions, weights))
    neighbours = select_neighbours(all_pairs, model.item.shape[0], record.config.model.neighbours)
    return _finish(folder, record, model, neighbours, all_pairs)


def _begin_warm_start(previous: Checkpoint, newer: FineTuningData, folder: Path, lineage: str) -> TrainingRecord:
    """Return the record of a warm start, with the old model's metrics on the newer sessions; write the first files.

    Args:
        previous: Trained model.
        newer: Sessions that the model has not trained on.
        folder: Folder of the new checkpoint.
        lineage: Description of the trained model.
    """
    counted, added = previous.record.counted_sessions, len(newer.sessions)
    if not counted:
        message = "the model comes from a version that did not weigh co-occurrences by age: train a new model"
        raise TrainingError(message)
    config = previous.record.config
    new_record = TrainingRecord(
        config=config,
        report=newer.report,
        popular_items=previous.record.popular_items,
        lineage=(*previous.record.lineage, lineage),
    )
    record = _read_or_start(folder, new_record)
    if record.finished:
        return record
    predict = functools.partial(predict_sessions, previous.model.eval(), previous.table())
    predictions = predict(newer.sample, previous.session_neighbours())
    calibration, stack = previous.record.calibration, previous.stack
    if calibration:
        heads = BlendedHeads(calibration=calibration, stack=stack, max_length=config.model.max_length)
        blended, calibration = recalibrate(heads, newer, predict)
        predictions = blended._replace(ranks=predictions.ranks)
    metrics = compute_metrics(predictions, newer.sample)
    record = msgspec.structs.replace(
        record, calibration=calibration, held_out_metrics=metrics, counted_sessions=counted + added
    )
    start_checkpoint(folder, record, newer.vocabulary, newer.sample)
    if indexed := previous.indexed_sessions:
        save_sessions(folder, indexed._replace(items=index_sessions(newer.sessions, indexed.items)))
    if stack:
        save_stack(folder, stack.grow(len(newer.vocabulary)))
    return record


def _weigh(newer: FineTuningData, pairs: PairCounts, record: TrainingRecord) -> tuple[Longs, PairCounts]:
    """Return the weight of each newer session's co-occurrences, and the decayed counts of the older sessions.

    Args:
        newer: Sessions that the model has not counted.
        pairs: Co-occurrence counts of the older sessions.
        record: Record of the warm start, with the number of all sessions.
    """
    counted, added, half = record.counted_sessions, len(newer.sessions), record.config.neighbours_half
    return weigh_by_age(counted, half)[counted - added :], decay_counts(pairs, added / counted, half)


def _run_final_pass(
    model: SessionTransformer, final_pass: TrainingPass, record: TrainingRecord, folder: Path, console: Console
) -> TrainingRecord:
    """Fine-tune on the newest sessions in one pass, and write the finished checkpoint."""
    optimizer, number = make_optimizer(model, final_pass.config), final_pass.config.epochs + 1
    with TrainingProgress(console, WorkPlan(epochs=1, steps=final_pass.steps)) as progress:
        progress.start("fine-tuning")
        train_pass(model, optimizer, final_pass, number=number, on_step=progress.advance)
    return _finish(folder, record, model, final_pass.neighbours, final_pass.pairs)


def _finish(
    folder: Path, record: TrainingRecord, model: SessionTransformer, neighbours: Neighbours, pairs: PairCounts
) -> TrainingRecord:
    """Write the files of a finished checkpoint, and return its record.

    Args:
        folder: Checkpoint folder.
        record: Record of the training.
        model: The trained model.
        neighbours: Neighbours of every item.
        pairs: Co-occurrence counts of all sessions.
    """
    save_model(folder / "weights.pt", model, neighbours)
    save_pairs(folder, pairs)
    record = msgspec.structs.replace(record, finished=True)
    write_record(folder, record)
    for name in ("best.pt", "training.pt"):
        (folder / name).unlink(missing_ok=True)
    return record


@torch.inference_mode()
def _make_table(model: SessionTransformer, neighbours: Neighbours) -> Tensor:
    """Return the item vectors with the neighbours of all sessions, as in serving: (V, D)."""
    return model.table(NeighbourMatrix(neighbours, model.item.device))


def format_metrics(metrics: Mapping[str, float]) -> str:
    """Return the main metrics in words; without a purchase in the sessions there is no metric of purchases."""
    names = [f"hit_rate@{CUTOFF}", f"mrr@{CUTOFF}", *(["purchase_pr_auc"] if metrics["purchase_rate"] else [])]
    return ", ".join(f"{name} {metrics[name]:.4f}" for name in names)


def _plan_work(dataset: Dataset, training_pass: TrainingPass, *, is_complete: bool) -> WorkPlan:
    """Return the work of a training, for the time that remains.

    Args:
        dataset: Sessions for training and validation.
        training_pass: Pass of the epochs.
        is_complete: Whether heads and final pass follow the epochs.
    """
    config, steps, data = training_pass.config, training_pass.steps, dataset.tree_data
    events = len(dataset.training.items)
    final_sessions = len(dataset.sessions) - (1 - config.top_up_share) * len(dataset.training)
    has_trees = config.trees and data.has_actions
    return WorkPlan(
        epochs=config.epochs,
        steps=steps,
        validation_steps=FORWARD_SHARE * steps * len(dataset.validation.items) / events,
        final_steps=round(final_sessions / training_pass.batch_size) if is_complete else 0,
        head_rows=min(MAX_ROWS, len(data.sessions.items)) if is_complete and has_trees else 0,
    )


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _is_finished(record: TrainingRecord) -> bool:
    """Return whether the epochs are over: all done, or early stopping after `patience` epochs without a better one."""
    number = len(record.epochs)
    return number == record.config.epochs or (number > 0 and number - record.best_epoch >= record.config.patience)


def _read_or_start(folder: Path, new_record: TrainingRecord) -> TrainingRecord:
    """Return the record of the same training in the folder, or `new_record` if the folder is new or empty.

    Raises:
        TrainingError: The folder holds another training, or files that are no checkpoint.
    """
    record = read_record(folder)
    if record is None:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            message = f"{folder} is not empty and is no checkpoint: name a new folder"
            raise TrainingError(message)
        return new_record
    if differences := list(_list_differences(record, new_record)):
        message = (
            f"{folder} holds another training ({', '.join(differences)}): repeat its command to continue it, or name a "
            "new folder"
        )
        raise TrainingError(message)
    return record


def _list_differences(record: TrainingRecord, new_record: TrainingRecord) -> Iterator[str]:
    """Yield what tells the training in a folder from a new one, in words."""
    settings, new_settings = (
        dataclasses.asdict(training.config) | dataclasses.asdict(training.config.model)
        for training in (record, new_record)
    )
    for name, value in settings.items():
        if name != "model" and value != new_settings[name]:
            yield f"{name} {value}, not {new_settings[name]}"
    if record.report.sha256 != new_record.report.sha256:
        yield "other sessions"
    if record.lineage != new_record.lineage:
        yield "another model to begin with"


def _resume(
    folder: Path,
    record: TrainingRecord,
    dataset: Dataset,
    model: SessionTransformer,
    optimizer: torch.optim.Optimizer,
) -> TrainingRecord:
    """Return the record of an unfinished training, and load the state of model and optimizer after its last epoch."""
    if not (folder / "training.pt").is_file():  # the first epoch has not ended
        start_checkpoint(folder, record, dataset.vocabulary, dataset.held_out)
        return record
    state = load_tensors(folder / "training.pt")
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    record = msgspec.json.decode(state["card"], type=TrainingRecord)  # "card" is the stored name of the record
    write_record(folder, record)
    return record


def _save_state(
    folder: Path, record: TrainingRecord, model: SessionTransformer, optimizer: torch.optim.Optimizer
) -> None:
    """Write the state that `_resume` loads."""
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "card": msgspec.json.encode(record)}
    save_tensors(folder / "training.pt", state)
    write_record(folder, record)
