"""Config: the shape of a model and the settings of a training, each with its unit and reason; presets are objects."""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path

import msgspec

from clickscore.model.errors import TrainingError
from clickscore.schemas.toml_text import parse_toml

REPEAT_DISTANCES, REPEAT_TIMES = 12, 4
"""Size of the table of repeat bonuses: events since the item's last event, and earlier events on the item. Larger
values share the last entry."""
MIN_ACTION_PROBABILITY = 5e-4
"""Smallest probability of a next action, before the division by the sum. An action that no training session had can
still come in another shop, or tomorrow; a lower limit costs less where it never comes, and more where it does."""
MAX_SEED = 2**63 - 1
"""Largest seed: torch reads no larger whole number."""
REPEAT_STEP = 10
"""Factor of the table of repeat bonuses: with a factor of 1 the table would learn too slowly at the common rate."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The shape of a model. With weights, neighbours and vocabulary it defines the model."""

    dim: int = 192
    """Size D of item and session vectors. 192 is clearly better than 128; 256 adds little (`docs/experiments.md`)."""
    layers: int = 1
    """Transformer blocks. A second block gains less for its time than a larger `dim` (`docs/experiments.md`)."""
    heads: int = 2
    """Attention heads H; `dim` is a multiple of H."""
    ffn: int = 256
    """Width of the feed-forward network: a multiple of 16, the float32 numbers of a 512-bit vector register."""
    max_length: int = 50
    """Events that the model reads, at most: as many as a worker keeps of a session."""
    neighbours: int = 12
    """Neighbours K of an item, at most; 8, 16 and 24 were not clearly better (`docs/experiments.md`)."""
    temperature: float = 0.07
    """Divisor of the cosines that gives scores, as in CORE and MiaSRec."""
    dropout: float = 0.2
    """Share of activations that training drops."""
    item_dropout: float = 0.35
    """Share of the numbers of an input item vector that training drops."""

    def __post_init__(self) -> None:
        """Check the bounds, and fields against each other."""
        if self.dim % self.heads:
            message = f"dim {self.dim} is no multiple of heads {self.heads}"
            raise TrainingError(message)
        if min(self.dim, self.layers, self.heads, self.ffn, self.max_length, self.neighbours) < 1:
            message = "dim, layers, heads, ffn, max_length and neighbours must be at least 1"
            raise TrainingError(message)
        # Scores reach 1 / temperature, 50 at 0.02: the loss takes exp of scores without subtracting their maximum
        if not (0 <= self.dropout < 1 and 0 <= self.item_dropout < 1 and self.temperature >= 0.02):
            message = "dropout and item_dropout must be at least 0 and below 1, and temperature at least 0.02"
            raise TrainingError(message)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of one training: the same config, sessions and machine give the same weights.

    Fields whose names start with `top_up` belong to fine-tuning: the final pass, and a warm start on newer sessions.
    """

    model: ModelConfig = ModelConfig()
    seed: int = 0
    """Seed of weights, batch order, dropout, folds and the rows of the trees."""
    epochs: int = 0
    """Passes over the training sessions, at most; the learning rate decays over all of them. 0: see `settle_epochs`."""
    patience: int = 2
    """Epochs without a better validation score (mean of hit rate and MRR) before early stopping."""
    batch: int = 512
    """Sessions of a step, at most; fewer, down to 16, if an epoch would have fewer than `steps` steps."""
    steps: int = 400
    """Minimum steps of an epoch, reached by smaller batches: 0.2 points of MRR@20 better than 200."""
    learning_rate: float = 4e-3
    """Peak learning rate of a full batch, scaled by the root of the share of a smaller one. The usual 1e-3 would need
    more epochs."""
    warmup: int = 100
    """Steps of linear warm-up, a tenth of all steps at most."""
    weight_decay: float = 0.01
    """Weight decay of matrices; tables, norms and biases have none."""
    folds: int = 8
    """Folds of cross-fitting: a session trains with neighbours that were counted in the other folds."""
    neighbours_half: float = 0.5
    """Half-life of co-occurrences, as a share of the sessions, from the newest back: co-occurrence changes, and with a
    half-life 12 neighbours hold the next item more often (`docs/experiments.md`)."""
    top_up_share: float = 0.2
    """Share of the training sessions, the newest, in the final pass, which has all newer sessions as well."""
    top_up_rate: float = 8e-4
    """Peak learning rate of fine-tuning, a fifth of `learning_rate`."""
    top_up_steps: int = 40
    """Steps of a warm start that a smaller batch is used for."""
    top_up_warmup: int = 20
    """Steps of linear warm-up in fine-tuning, a tenth of all steps at most."""
    next_action_weight: float = 0.5
    """Weight of the next-action loss; the next-item loss has weight 1."""
    purchase_weight: float = 0.5
    """Weight of the purchase loss; the next-item loss has weight 1."""
    trees: bool = True
    """Whether trees and regression are blended with the heads, if the sessions hold other actions than views."""
    min_count: int = 1
    """Events of a known item, at least. An item with a single event still has neighbours, so 1 is enough."""
    validation_share: float = 0.03
    """Share of validation sessions: the newest before the held-out ones. They decide early stopping and calibration."""
    held_out_share: float = 0.02
    """Share of held-out sessions, the newest. Metrics are measured on them before the final pass trains on them."""
    ranked_sessions: int = 5_000
    """Validation and held-out sessions that are ranked, at most each: HR@20 is then exact to about 0.5 points."""

    def __post_init__(self) -> None:
        """Check the bounds, and fields against each other."""
        shares = (self.validation_share, self.held_out_share)
        if min(shares) <= 0 or sum(shares) >= 1:
            message = "validation_share and held_out_share must be above 0, and below 1 together"
            raise TrainingError(message)
        if not 0 <= self.seed <= MAX_SEED:
            message = f"seed must be from 0 to {MAX_SEED}"
            raise TrainingError(message)
        if min(self.learning_rate, self.top_up_rate) <= 0:
            message = "learning_rate and top_up_rate must be above 0"
            raise TrainingError(message)
        weights = (self.weight_decay, self.next_action_weight, self.purchase_weight)
        if min(self.warmup, self.top_up_warmup, *weights) < 0:
            message = "warmup, top_up_warmup, weight_decay and the weights of the losses must be at least 0"
            raise TrainingError(message)
        if self.epochs < 0 or min(self.patience, self.batch, self.min_count, self.ranked_sessions) < 1:
            message = "patience, batch, min_count and ranked_sessions must be at least 1, and epochs at least 0"
            raise TrainingError(message)
        if min(self.steps, self.top_up_steps) < 1:
            message = "steps and top_up_steps must be at least 1"
            raise TrainingError(message)
        if self.folds < 2 or not 0 <= self.top_up_share <= 1 or self.neighbours_half <= 0:
            message = "folds must be at least 2, top_up_share from 0 to 1, and neighbours_half above 0"
            raise TrainingError(message)


DEFAULT = TrainConfig()
SMALL = TrainConfig(
    model=ModelConfig(dim=32, ffn=128, max_length=20, dropout=0.1, item_dropout=0.1), batch=256, steps=200
)
"""Preset for the demo and for catalogues of some thousand items."""

SMALL_DATASET_SESSIONS = 100_000
"""Training sessions below which a training has twice the epochs."""

PRESETS: dict[str, TrainConfig] = {"default": DEFAULT, "small": SMALL}


def settle_epochs(config: TrainConfig, sessions: int) -> TrainConfig:
    """Return a config with a number of epochs: its own, or 4, or 8 for a small data set.

    Validation was flat after 3 epochs of 110,000 sessions; 9,000 sessions gained 4 points of HR@20 from epoch 4 to 8.
    """
    return dataclasses.replace(config, epochs=config.epochs or (8 if sessions < SMALL_DATASET_SESSIONS else 4))


def read_preset(name: str) -> TrainConfig:
    """Return a preset by name, or from a TOML file as `format_preset` writes it; missing fields have their defaults.

    Raises:
        TrainingError: There is no such preset and no such file, or the file is no preset.
    """
    if name in PRESETS:
        return PRESETS[name]
    path = Path(name)
    if not path.is_file():
        message = f"{name!r} is no preset and no file: use {', '.join(PRESETS)}, or a file of `clickscore tune`"
        raise TrainingError(message)
    try:
        return override(DEFAULT, parse_toml(path.read_bytes()))
    except (ValueError, TrainingError) as exc:
        message = f"{path} is no preset: {exc}"
        raise TrainingError(message) from exc


def format_preset(config: TrainConfig, comment: str) -> str:
    """Return a config as TOML: a line of comment, then one line for each field of run and model."""
    fields = msgspec.to_builtins(config)
    fields |= fields.pop("model")
    return "".join([f"# {comment}\n", *(f"{name} = {json.dumps(value)}\n" for name, value in fields.items())])


def override(config: TrainConfig, changes: Mapping[str, str | float]) -> TrainConfig:
    """Return a config with changed fields of run or model, from numbers or text such as `{"dim": "128"}`.

    Raises:
        TrainingError: There is no such field, or a value has another type.
    """
    run_fields, model_fields = ({field.name for field in dataclasses.fields(part)} for part in (config, config.model))
    run_fields.discard("model")
    unknown = sorted(set(changes) - run_fields - model_fields)
    if unknown:
        message = f"there is no setting {unknown[0]!r}: use one of {', '.join(sorted(run_fields | model_fields))}"
        raise TrainingError(message)
    fields = msgspec.to_builtins(config)
    for name, value in changes.items():
        (fields if name in run_fields else fields["model"])[name] = value
    try:
        changed = msgspec.convert(fields, TrainConfig, strict=False)
    except msgspec.ValidationError as exc:
        message = f"a setting has a value of another type: {exc}"
        raise TrainingError(message) from exc
    values = dataclasses.asdict(changed) | dataclasses.asdict(changed.model)
    if infinite := [name for name in changes if isinstance(values[name], float) and not math.isfinite(values[name])]:
        message = f"{infinite[0]} must be a finite number, not {values[infinite[0]]}"
        raise TrainingError(message)
    return changed
