"""Config: what a model is and how it is trained, as values with a unit and a reason each; presets are objects."""

import dataclasses
from collections.abc import Mapping

import msgspec

from model.errors import TrainingError


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The shape of a model: together with its weights and its vocabulary it is the model."""

    dim: int = 64
    """Numbers that stand for an item: 64 keeps a catalogue of 50,000 within 1 ms a session on one core."""
    layers: int = 2
    heads: int = 2
    ffn: int = 256
    """Width of the feed-forward layer, 4 * dim; a multiple of 16 keeps rows on whole vector registers."""
    max_length: int = 50
    """Events that it reads at most: as many as a worker remembers of a session."""
    dropout: float = 0.2
    """Share of activations dropped in training."""

    def __post_init__(self) -> None:
        """Check what one field cannot know of another."""
        if self.dim % self.heads:
            message = f"dim {self.dim} is no multiple of heads {self.heads}"
            raise TrainingError(message)
        if min(self.dim, self.layers, self.heads, self.ffn, self.max_length) < 1 or not 0 <= self.dropout < 1:
            message = "dim, layers, heads, ffn and max_length are at least 1, and dropout is at least 0 and below 1"
            raise TrainingError(message)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run: the same config, sessions and machine give the same weights."""

    model: ModelConfig = ModelConfig()
    seed: int = 0
    epochs: int = 8
    """Passes over the training sessions, at most: the learning rate reaches its end with the last."""
    patience: int = 2
    """Epochs without a better validation MRR after which training stops."""
    batch: int = 128
    """Sessions a step."""
    learning_rate: float = 3e-3
    """Peak: a usual 1e-3 wastes a small budget (3e-3 was 8 points of HR@20 better after two epochs)."""
    warmup: int = 100
    """Steps up to the peak, a tenth of all steps at most."""
    weight_decay: float = 0.01
    """Of the matrices; tables, norms and biases have none."""
    next_action_weight: float = 0.5
    """Of the next-action loss, beside 1 for the next item."""
    purchase_weight: float = 0.5
    """Of the purchase loss, beside 1 for the next item."""
    min_count: int = 2
    """Training events that an item needs to be known: what was seen once has nothing to learn from."""
    validation_share: float = 0.05
    """Share of the sessions, the newest before the held-out ones, that say when to stop."""
    held_out_share: float = 0.05
    """Share of the sessions, the newest, that only the final metrics see."""
    ranked_sessions: int = 5_000
    """Sessions of validation, and of the held-out ones, that are ranked: enough for 0.5 points of HR@20."""

    def __post_init__(self) -> None:
        """Check what one field cannot know of another."""
        shares = (self.validation_share, self.held_out_share)
        if min(shares) <= 0 or sum(shares) >= 1:
            message = "validation_share and held_out_share are above 0, and below 1 together"
            raise TrainingError(message)
        if min(self.epochs, self.patience, self.batch, self.min_count, self.ranked_sessions) < 1:
            message = "epochs, patience, batch, min_count and ranked_sessions are at least 1"
            raise TrainingError(message)


DEFAULT = TrainConfig()
SMALL = TrainConfig(model=ModelConfig(dim=32, ffn=128, max_length=20), batch=64)

PRESETS: dict[str, TrainConfig] = {"default": DEFAULT, "small": SMALL}


def override(config: TrainConfig, changes: Mapping[str, str]) -> TrainConfig:
    """Return a config with some fields of it, or of its model, set from text such as `{"dim": "128"}`.

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
    for name, text in changes.items():
        (fields if name in of_run else fields["model"])[name] = text
    try:
        return msgspec.convert(fields, TrainConfig, strict=False)
    except msgspec.ValidationError as exc:
        message = f"a setting is no value of its type: {exc}"
        raise TrainingError(message) from exc
