import numpy as np
import pytest
import torch
from torch.nn import functional

from export.random_bundle import random_weights
from export.ship import weights_of
from model.config import ModelConfig
from model.neighbours import Counts, Near
from model.transformer import Mixing, SessionTransformer
from tests.model.builders import network

pytestmark = pytest.mark.train

CONFIG = ModelConfig(dim=16, ffn=32, heads=2, layers=2, max_length=6)


class Asked:
    """A model, asked after every event of one session."""

    def __init__(self) -> None:
        self.model, self.catalogue = network(CONFIG, 20)

    def vectors(self, items: list[int], actions: list[int] | None = None) -> torch.Tensor:
        """Return the session vector after each event: (T, D)."""
        with torch.no_grad():
            return self.model(self.catalogue, torch.tensor([items]), torch.tensor([actions or [1] * len(items)]))[0][0]

    def scores(self, items: list[int]) -> torch.Tensor:
        """Return the scores of all items after each event: (T, V - 1)."""
        rows = torch.tensor([items])
        with torch.no_grad():
            vectors, of_items = self.model(self.catalogue, rows, (rows > 0).long())
            return self.model.scores(
                self.catalogue, self.model.wishes(self.catalogue, vectors, of_items, rows, rows > 0)
            )


@pytest.fixture
def asked() -> Asked:
    return Asked()


def test_event_sees_nothing_that_comes_after_it(asked):
    torch.testing.assert_close(asked.scores([1, 2, 3, 4])[:2], asked.scores([1, 2, 9, 8])[:2])


def test_every_beginning_is_answered_as_if_the_session_ended_there(asked):
    whole = asked.scores([5, 3, 5, 1, 3])
    for end in range(1, 6):
        torch.testing.assert_close(whole[end - 1], asked.scores([5, 3, 5, 1, 3][:end])[-1])


def test_padding_after_the_end_changes_nothing(asked):
    torch.testing.assert_close(asked.scores([1, 2]), asked.scores([1, 2, 0, 0]))


def test_order_of_events_matters(asked):
    assert not torch.allclose(asked.vectors([1, 2, 3])[-1], asked.vectors([2, 1, 3])[-1], atol=1e-3)


def test_action_matters(asked):
    assert not torch.allclose(asked.vectors([1, 2], [1, 1])[-1], asked.vectors([1, 2], [1, 2])[-1], atol=1e-3)


def test_session_longer_than_its_distances_is_answered(asked):
    assert torch.isfinite(asked.scores([1, 2, 3, 4, 5, 6, 7, 8])).all()


def added(asked: Asked, items: list[int]) -> list[dict[int, float]]:
    """Return what is added to the scores of single items after each event, beside the cosines."""
    rows = torch.tensor([items])
    with torch.no_grad():
        vectors, of_items = asked.model(asked.catalogue, rows, (rows > 0).long())
        wishes = asked.model.wishes(asked.catalogue, vectors, of_items, rows, rows > 0)
    found: list[dict[int, float]] = [{} for _ in items]
    for at, row, value in zip(*(part.tolist() for part in wishes[1:]), strict=True):
        assert row not in found[at]
        found[at][row] = value
    assert wishes.at.tolist() == sorted(wishes.at.tolist())
    return found


def forget(*parts: torch.nn.Module) -> None:
    for part in parts:
        for parameter in part.parameters():
            torch.nn.init.zeros_(parameter)


def test_item_of_the_session_is_scored_by_how_long_ago_and_how_often_it_was_there(asked):
    forget(asked.model.repeats.readiness, asked.model.followers)
    asked.catalogue.followers[:] = 0
    table = 10 * asked.model.repeats.table
    expected = [
        {7: table[0, 0]},
        {7: table[1, 0], 9: table[0, 0]},
        {7: table[0, 1], 9: table[1, 0]},
        {7: table[0, 2], 9: table[2, 0]},
    ]
    for found, wanted in zip(added(asked, [7, 9, 7, 7]), expected, strict=True):
        assert found == pytest.approx({row: value.item() for row, value in wanted.items()})


def test_what_follows_the_newest_three_events_is_scored_by_how_often_it_does(asked):
    forget(asked.model.repeats, asked.model.followers)
    asked.model.followers.trust.bias.data = torch.tensor([4.0, 2.0, 1.0])
    asked.catalogue.followers[:] = 0
    for row, follower, strength in ((1, 11, 0.5), (2, 11, 1.0), (3, 13, 1.0), (4, 14, 1.0)):
        asked.catalogue.followers[row, 0], asked.catalogue.strengths[row, 0] = follower, strength
    after_four = added(asked, [1, 2, 3, 4])
    assert {row: value for row, value in after_four[1].items() if value} == {11: 2 * 0.5 + 4}
    assert {row: value for row, value in after_four[3].items() if value} == {14: 4, 13: 2, 11: 1}


def test_score_of_an_item_beside_what_is_added_is_a_cosine_by_temperature(asked):
    forget(asked.model.repeats, asked.model.followers)
    assert asked.scores([1, 2]).abs().max() <= 1 / CONFIG.temperature + 1e-3


def test_new_model_wants_what_the_session_has():
    torch.manual_seed(0)
    model = SessionTransformer(ModelConfig(dim=32), items=50).eval()
    nobody = Near(np.zeros((51, 1), dtype=np.int32), np.zeros((51, 1), dtype=np.float32))
    rows = torch.tensor([[5, 9]])
    with torch.no_grad():
        catalogue = model.catalogue(Mixing(Counts(nobody, nobody), torch.device("cpu")))
        vectors, of_items = model(catalogue, rows, torch.ones_like(rows))
        wanted = model.wishes(catalogue, vectors, of_items, rows, rows > 0).vectors[-1]
    assert set((catalogue.table @ wanted).topk(2).indices.tolist()) == {5, 9}


@pytest.fixture
def mixing() -> tuple[Mixing, torch.Tensor]:
    """Neighbours of five rows, sparse and as a matrix (5, 5)."""
    rows = np.array([[0, 0], [2, 3], [1, 0], [4, 1], [0, 0]], dtype=np.int32)
    shares = np.array([[0, 0], [0.5, 0.5], [1, 0], [0.3, 0.7], [0, 0]], dtype=np.float32)
    matrix = torch.zeros(5, 5)
    matrix[torch.arange(5)[:, None], torch.from_numpy(rows).long()] = torch.from_numpy(shares)
    near = Near(rows, shares)
    return Mixing(Counts(near, near), torch.device("cpu")), matrix


def test_table_and_its_gradient_are_those_of_torch(mixing):
    torch.manual_seed(0)
    model = SessionTransformer(ModelConfig(dim=4, heads=1), items=4)
    table = model.catalogue(mixing[0]).table
    expected = functional.normalize(model.item + model.gate * (mixing[1] @ model.item), dim=1)
    torch.testing.assert_close(table, expected)
    weights = torch.randn(5, 4)
    ours, theirs = (
        torch.autograd.grad((made * weights)[1:].sum(), (model.item, model.gate)) for made in (table, expected)
    )
    torch.testing.assert_close(ours[0], theirs[0].index_fill(0, torch.tensor([0]), 0))  # padding never learns
    torch.testing.assert_close(ours[1], theirs[1])


def test_grown_model_says_the_same_of_what_it_knew():
    torch.manual_seed(0)
    model = SessionTransformer(CONFIG, items=20)
    grown = model.grown(25)
    assert torch.equal(grown.item[:21], model.item)
    assert grown.item.shape == (26, 16)
    assert torch.equal(grown.readout.query.weight, model.readout.query.weight)


def test_random_weights_have_the_names_and_shapes_of_a_model():
    _, catalogue = network(CONFIG, 20)
    made = weights_of(SessionTransformer(CONFIG, items=20), catalogue)
    assert {name: array.shape for name, array in random_weights(CONFIG, 20).items()} == {
        name: array.shape for name, array in made.items()
    }
