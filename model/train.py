"""Train: one straight loop from sessions to weights, which goes on after a kill as if there had been none."""

# pyright: standard
# torch leaves what a module returns untyped.

import math
from pathlib import Path

import msgspec
import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor
from torch.nn import functional

from model.checkpoint import Card, Epoch, load_tensors, read_card, save_tensors, start_checkpoint, write_card
from model.config import TrainConfig
from model.dataset import Dataset
from model.errors import TrainingError
from model.evaluate import K, evaluate_model
from model.features import Examples, Longs, batches, events_of, padded
from model.loss import catalogue_loss
from model.transformer import SessionTransformer
from model.vocabulary import POPULAR

BETAS = (0.9, 0.98)
CLIP = 1.0
"""Largest length of the gradient."""
LAST_RATE = 0.02
"""Learning rate at the end, as a share of the peak."""
CRITERION = f"mrr@{K}"
"""What says when to stop."""


def train(dataset: Dataset, config: TrainConfig, folder: Path, console: Console) -> Card:
    """Train a model, or go on with a training that was killed, and return its card.

    After each epoch the folder holds the best model so far, and what is needed to go on from there. Order and dropout
    of an epoch depend on the seed and its number alone, so a training that goes on ends with the same weights.

    Args:
        dataset: What it learns from.
        config: How.
        folder: Where the checkpoint lies, or will.
        console: Where progress is shown.

    Raises:
        TrainingError: The folder holds another training, or something else.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(config.seed)
    model = SessionTransformer(config.model, len(dataset.vocabulary)).to(device)
    optimizer = torch.optim.AdamW(_groups(model, config), lr=config.learning_rate, betas=BETAS)
    card = _resume(folder, dataset, config, model, optimizer)
    if card.finished:
        return card

    steps = math.ceil(len(dataset.training) / config.batch)  # an epoch
    with _progress(console) as progress:
        task = progress.add_task("", total=steps * config.epochs, completed=steps * len(card.epochs), loss="", mrr="")
        for number in range(len(card.epochs) + 1, config.epochs + 1):
            torch.manual_seed(int(np.random.default_rng((config.seed, number)).integers(2**63)))
            progress.update(task, description=f"epoch {number} of {config.epochs}")

            # Learn from every training session once
            model.train()
            total = 0.0
            for step, sessions in enumerate(batches(dataset.training.lengths, config.batch, (config.seed, number))):
                _set_rate(optimizer, (number - 1) * steps + step, steps * config.epochs, config)
                loss = _loss(model, dataset.training, sessions, config)
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
                optimizer.step()
                total += loss.item()
                progress.update(task, advance=1, loss=f"loss {total / (step + 1):.3f}")

            # See how good it is now
            model.eval()
            measured = evaluate_model(model, dataset.validation)
            epoch = Epoch(number=number, loss=total / steps, metrics=measured)
            progress.update(task, mrr=f"validation {CRITERION} {measured[CRITERION]:.4f}")
            progress.console.print(
                f"epoch {number}: loss {epoch.loss:.4f}, validation hit_rate@{K} {measured[f'hit_rate@{K}']:.4f}, "
                f"{CRITERION} {measured[CRITERION]:.4f}, purchase_pr_auc {measured['purchase_pr_auc']:.4f}"
            )

            # Keep the best, then what is needed to go on
            is_best = not card.best or measured[CRITERION] > card.epochs[card.best - 1].metrics[CRITERION]
            best = number if is_best else card.best
            finished = number == config.epochs or number - best >= config.patience
            card = msgspec.structs.replace(card, epochs=(*card.epochs, epoch), best=best, finished=finished)
            if is_best:
                save_tensors(folder / "weights.pt", model.state_dict())
            _save(folder, card, model, optimizer)
            if finished:
                break
    return card


def _loss(model: SessionTransformer, training: Examples, sessions: Longs, config: TrainConfig) -> Tensor:
    """Return the weighted loss of the three heads, each a mean over the events that it has an answer for."""
    device = model.item.weight.device
    batch = padded(training, sessions)
    real = torch.from_numpy(batch.items > 0).to(device)  # (B, T)
    at = events_of(training, sessions)
    next_item, next_action, purchase = (
        torch.from_numpy(answer[at].astype(np.int64)).to(device)
        for answer in (training.next_item, training.next_action, training.purchase)
    )  # (n,) each
    items, actions = torch.from_numpy(batch.items).to(device), torch.from_numpy(batch.actions).to(device)
    vectors = model(items, actions)[real]  # (B, T, D) -> (n, D)

    followed = next_item > 0
    loss = catalogue_loss(*model.tied(vectors[followed]), next_item[followed] - 1)
    loss = loss + config.next_action_weight * functional.cross_entropy(model.action_logits(vectors), next_action)
    bought = functional.binary_cross_entropy_with_logits(model.purchase_logit(vectors), purchase.float())
    return loss + config.purchase_weight * bought


def _groups(model: SessionTransformer, config: TrainConfig) -> list[dict[str, object]]:
    """Return the parameters with weight decay, which are the matrices of the blocks and heads, and those without."""
    parts: tuple[list[Tensor], list[Tensor]] = ([], [])
    for name, parameter in model.named_parameters():
        is_matrix = (
            parameter.ndim == 2 and not name.endswith("distance") and name not in {"item.weight", "action.weight"}
        )
        parts[not is_matrix].append(parameter)
    return [{"params": parts[0], "weight_decay": config.weight_decay}, {"params": parts[1], "weight_decay": 0.0}]


def _set_rate(optimizer: torch.optim.Optimizer, step: int, steps: int, config: TrainConfig) -> None:
    """Set the learning rate of a step: a straight line up, then half a cosine down."""
    warmup = min(config.warmup, steps // 10)
    done = (step - warmup) / max(1, steps - warmup)
    cosine = LAST_RATE + (1 - LAST_RATE) * (1 + math.cos(math.pi * done)) / 2
    for group in optimizer.param_groups:
        group["lr"] = config.learning_rate * ((step + 1) / (warmup + 1) if step < warmup else cosine)


def _resume(
    folder: Path, dataset: Dataset, config: TrainConfig, model: SessionTransformer, optimizer: torch.optim.Optimizer
) -> Card:
    """Return the card of the training in the folder, with model and optimizer as its last epoch left them.

    Where there is none, start one.
    """
    card = read_card(folder)
    if card is None:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            message = f"{folder} holds something that is no checkpoint: name a new folder"
            raise TrainingError(message)
        card = Card(config=config, report=dataset.report, popular=dataset.vocabulary.items[:POPULAR])
    if (card.config, card.report.sha256) != (config, dataset.report.sha256):
        message = f"{folder} holds a training with other settings or sessions: name a new folder, or remove it"
        raise TrainingError(message)
    if not card.finished and not (folder / "training.pt").is_file():  # no epoch has ended
        start_checkpoint(folder, card, dataset)
    elif not card.finished:
        state = load_tensors(folder / "training.pt")
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        card = msgspec.json.decode(state["card"], type=Card)
        write_card(folder, card)
    return card


def _save(folder: Path, card: Card, model: SessionTransformer, optimizer: torch.optim.Optimizer) -> None:
    """Write what is needed to go on; a finished training needs nothing."""
    if card.finished:
        write_card(folder, card)
        (folder / "training.pt").unlink(missing_ok=True)
        return
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "card": msgspec.json.encode(card)}
    save_tensors(folder / "training.pt", state)
    write_card(folder, card)


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
