"""Networks: untrained models on torch, for tests."""

import torch

from clickscore.export.random_bundle import random_weights
from clickscore.model.config import ModelConfig
from clickscore.model.transformer import SessionTransformer


def network(config: ModelConfig, items: int) -> tuple[SessionTransformer, torch.Tensor]:
    """Return a model that has learned nothing, with weights large enough to tell inputs apart, and its item table."""
    weights = {name: torch.from_numpy(array) for name, array in random_weights(config, items).items()}
    table = weights.pop("table")
    model = SessionTransformer(config, items).eval()
    model.load_state_dict(model.state_dict() | weights)
    return model, table
