import pytest
import torch

from export.random_bundle import random_weights
from model.config import ModelConfig
from model.transformer import SessionTransformer

pytestmark = pytest.mark.train

CONFIG = ModelConfig(dim=16, ffn=32, heads=2, layers=2, max_length=6)


@pytest.fixture
def model() -> SessionTransformer:
    """A model that has learned nothing, with weights large enough to tell inputs apart."""
    model = SessionTransformer(CONFIG, items=20)
    weights = random_weights(CONFIG, 20)
    model.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    return model.eval()


def vectors(model: SessionTransformer, items: list[int], actions: list[int] | None = None) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([items]), torch.tensor([actions or [1] * len(items)]))[0]


def test_event_sees_nothing_that_comes_after_it(model):
    torch.testing.assert_close(vectors(model, [1, 2, 3, 4])[:2], vectors(model, [1, 2, 9, 8])[:2])


def test_every_beginning_is_answered_as_if_the_session_ended_there(model):
    whole = vectors(model, [5, 3, 8, 1])
    for end in range(1, 5):
        torch.testing.assert_close(whole[end - 1], vectors(model, [5, 3, 8, 1][:end])[-1])


def test_padding_after_the_end_changes_nothing(model):
    torch.testing.assert_close(vectors(model, [1, 2]), vectors(model, [1, 2, 0, 0], [1, 1, 0, 0])[:2])


def test_order_of_events_matters(model):
    assert not torch.allclose(vectors(model, [1, 2, 3])[-1], vectors(model, [2, 1, 3])[-1], atol=1e-3)


def test_action_matters(model):
    assert not torch.allclose(vectors(model, [1, 2], [1, 1])[-1], vectors(model, [1, 2], [1, 2])[-1], atol=1e-3)


def test_session_longer_than_its_distances_is_answered(model):
    assert torch.isfinite(vectors(model, [1, 2, 3, 4, 5, 6, 7, 8])).all()


def test_column_c_of_the_scores_is_row_c_plus_1(model):
    vector = vectors(model, [1, 2])[-1:]
    wanted = model.readout(vector)
    torch.testing.assert_close(model.scores(vector)[0, 6], (wanted @ model.item.weight[7])[0])


def test_new_model_gives_every_item_about_the_same_chance():
    torch.manual_seed(0)
    fresh = SessionTransformer(ModelConfig(), items=1000).eval()
    with torch.no_grad():
        chances = fresh.scores(fresh(torch.tensor([[5, 9]]), torch.tensor([[1, 1]]))[0]).softmax(dim=-1)
    assert chances.max() < 0.5


def test_random_weights_have_the_names_and_shapes_of_a_model():
    made = {name: tuple(tensor.shape) for name, tensor in SessionTransformer(CONFIG, items=20).state_dict().items()}
    assert {name: array.shape for name, array in random_weights(CONFIG, 20).items()} == made
