"""Config: what a model is and how it is trained, as values with a unit and a reason each; presets are objects."""

import dataclasses
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path

import msgspec

from clickscore.model.errors import TrainingError

REPEAT_DISTANCES, REPEAT_TIMES = 12, 4
"""How finely a repeat is told: events since the item's last one, and events on it before that; the last means more."""
REPEAT_STEP = 10
"""What the table of repeats is multiplied by: at the common learning rate it would learn too slowly."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The shape of a model: together with its weights, neighbours and vocabulary it is the model."""

    dim: int = 192
    """Numbers that stand for an item: 192 instead of 128 earn much, 256 little more (`docs/model.md`)."""
    layers: int = 1
    heads: int = 2
    ffn: int = 256
    """Width of the feed-forward layer; a multiple of 16 keeps rows on whole vector registers."""
    max_length: int = 50
    """Events that it reads at most: as many as a worker remembers of a session."""
    neighbours: int = 12
    """Items that are folded into an item's vector, at most."""
    temperature: float = 0.07
    """What cosines are divided by to be scores: CORE's, and MiaSRec's."""
    dropout: float = 0.2
    """Share of activations dropped in training."""
    item_dropout: float = 0.35
    """Share of the numbers of an item's vector dropped in training, where a session is read."""

    def __post_init__(self) -> None:
        """Check what one field cannot know of another."""
        if self.dim % self.heads:
            message = f"dim {self.dim} is no multiple of heads {self.heads}"
            raise TrainingError(message)
        if min(self.dim, self.layers, self.heads, self.ffn, self.max_length, self.neighbours) < 1:
            message = "dim, layers, heads, ffn, max_length and neighbours are at least 1"
            raise TrainingError(message)
        if not (0 <= self.dropout < 1 and 0 <= self.item_dropout < 1 and self.temperature >= 0.02):
            message = "dropout and item_dropout are at least 0 and below 1, and temperature is at least 0.02"
            raise TrainingError(message)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run: the same config, sessions and machine give the same weights."""

    model: ModelConfig = ModelConfig()
    seed: int = 0
    epochs: int = 0
    """Maximum passes over the training sessions; the learning rate falls to its end in the last. 0: `settle_epochs`."""
    patience: int = 2
    """Epochs without a better validation MRR after which training stops."""
    batch: int = 512
    """Sessions a step, at most: fewer where an epoch would have fewer than `steps`, down to 16."""
    steps: int = 400
    """Steps an epoch that a smaller batch is taken for: 0.2 points of MRR@20 better than 200 (`docs/model.md`)."""
    learning_rate: float = 4e-3
    """Peak for a whole batch, the root of its share for a smaller one. A usual 1e-3 wastes a small budget."""
    warmup: int = 100
    """Steps up to the peak, a tenth of all steps at most."""
    weight_decay: float = 0.01
    """Of the matrices; tables, norms and biases have none."""
    folds: int = 8
    """Parts of the sessions: one learns with neighbours counted in the others, so that it does not meet itself."""
    neighbours_half: float = 0.5
    """Share of the sessions, from the newest back, after which a meeting of items counts half: what goes together
    changes, and so 12 neighbours hold the next item more often (`docs/model.md`)."""
    top_up_share: float = 0.2
    """Share of the sessions for training, the newest, that are learned again at the end, with all that are newer."""
    top_up_rate: float = 8e-4
    """Peak learning rate of that pass, or of a later one over newer sessions."""
    top_up_steps: int = 40
    """Steps of a pass over newer sessions that a smaller batch is taken for."""
    top_up_warmup: int = 20
    """Steps up to it, a tenth of all steps at most."""
    next_action_weight: float = 0.5
    """Of the next-action loss, beside 1 for the next item."""
    purchase_weight: float = 0.5
    """Of the purchase loss, beside 1 for the next item."""
    trees: bool = True
    """Whether trees and a regression answer beside the heads, where the sessions tell more than views."""
    min_count: int = 1
    """Events that an item needs to be known: one that was seen once still has neighbours."""
    validation_share: float = 0.03
    """Share of the sessions, the newest before the held-out ones, that say when to stop."""
    held_out_share: float = 0.02
    """Share of the sessions, the newest, that the bundle's metrics are measured on before they are learned, too."""
    ranked_sessions: int = 5_000
    """Sessions of validation, and of the held-out ones, that are ranked: enough for 0.5 points of HR@20."""

    def __post_init__(self) -> None:
        """Check what one field cannot know of another."""
        shares = (self.validation_share, self.held_out_share)
        if min(shares) <= 0 or sum(shares) >= 1:
            message = "validation_share and held_out_share are above 0, and below 1 together"
            raise TrainingError(message)
        if self.epochs < 0 or min(self.patience, self.batch, self.min_count, self.ranked_sessions) < 1:
            message = "patience, batch, min_count and ranked_sessions are at least 1, and epochs at least 0"
            raise TrainingError(message)
        if min(self.steps, self.top_up_steps) < 1:
            message = "steps and top_up_steps are at least 1"
            raise TrainingError(message)
        if self.folds < 2 or not 0 <= self.top_up_share <= 1 or self.neighbours_half <= 0:
            message = "folds is at least 2, top_up_share is from 0 to 1, and neighbours_half is above 0"
            raise TrainingError(message)


DEFAULT = TrainConfig()
SMALL = TrainConfig(
    model=ModelConfig(dim=32, ffn=128, max_length=20, dropout=0.1, item_dropout=0.1), batch=256, steps=200
)

SMALL_DATASET_SESSIONS = 100_000
"""Below it, a set is passed over twice as often."""

PRESETS: dict[str, TrainConfig] = {"default": DEFAULT, "small": SMALL}


def settle_epochs(config: TrainConfig, sessions: int) -> TrainConfig:
    """Return the config of a run on so many training sessions: 4 epochs, or 8 where they are few.

    Validation was flat after 3 epochs of 110,000 sessions; 9,000 gained 4 points of HR@20 from epoch 4 to 8.
    """
    return dataclasses.replace(config, epochs=config.epochs or (8 if sessions < SMALL_DATASET_SESSIONS else 4))


def read_preset(name: str) -> TrainConfig:
    """Return a preset by its name, or from a file of `format_preset`; the file overrides the default preset.

    Raises:
        TrainingError: There is no such preset and no such file, or the file is no preset.
    """
    if name in PRESETS:
        return PRESETS[name]
    path = Path(name)
    if not path.is_file():
        message = f"no preset and no file {name!r}: there are {', '.join(PRESETS)}, and what `clickscore tune` writes"
        raise TrainingError(message)
    try:
        return override(DEFAULT, tomllib.loads(path.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, TrainingError) as exc:
        message = f"{path} is no preset: {exc}"
        raise TrainingError(message) from exc


def format_preset(config: TrainConfig, comment: str) -> str:
    """Return a preset as TOML: a field a line, those of the model among them, under a line of comment."""
    fields = msgspec.to_builtins(config)
    fields |= fields.pop("model")
    return "".join([f"# {comment}\n", *(f"{name} = {json.dumps(value)}\n" for name, value in fields.items())])


def override(config: TrainConfig, changes: Mapping[str, str | float]) -> TrainConfig:
    """Return a config with some fields of it, or of its model, set from numbers, or text such as `{"dim": "128"}`.

    Raises:
        TrainingError: There is no such field, or the text is no value of its type.
    """
    of_run, of_model = ({field.name for field in dataclasses.fields(part)} for part in (config, config.model))
    of_run.discard("model")
    unknown = sorted(set(changes) - of_run - of_model)
    if unknown:
        message = f"no setting {unknown[0]!r}; there are {', '.join(sorted(of_run | of_model))}"
        raise TrainingError(message)
    fields = msgspec.to_builtins(config)
    for name, value in changes.items():
        (fields if name in of_run else fields["model"])[name] = value
    try:
        return msgspec.convert(fields, TrainConfig, strict=False)
    except msgspec.ValidationError as exc:
        message = f"a setting is no value of its type: {exc}"
        raise TrainingError(message) from exc
