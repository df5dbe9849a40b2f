import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional

from clickscore.export.export_bundle import extract_weights
from clickscore.export.random_bundle import random_weights
from clickscore.model.config import ModelConfig
from clickscore.model.neighbours import Neighbours
from clickscore.model.transformer import NeighbourMatrix, SessionTransformer
from tests.model.networks import network

pytestmark = pytest.mark.train

CONFIG = ModelConfig(dim=16, ffn=32, heads=2, layers=2, max_length=6)


class OneSession:
    """A model that answers after every event of one session."""

    def __init__(self, config: ModelConfig = CONFIG) -> None:
        self.network, self.table = network(config, 20)

    def vectors(self, items: list[int], actions: list[int] | None = None) -> torch.Tensor:
        """Return the session vector after each event: (T, D)."""
        with torch.no_grad():
            return self.network(self.table, torch.tensor([items]), torch.tensor([actions or [1] * len(items)]))[0][0]

    def scores(self, items: list[int]) -> torch.Tensor:
        """Return the scores of all items after each event: (T, V - 1)."""
        rows = torch.tensor([items])
        with torch.no_grad():
            vectors, item_vectors = self.network(self.table, rows, (rows > 0).long())
            return self.network.scores(self.table, self.network.queries(vectors, item_vectors, rows, rows > 0))


@pytest.fixture
def model() -> OneSession:
    return OneSession()


def test_event_sees_nothing_that_comes_after_it(model):
    torch.testing.assert_close(model.scores([1, 2, 3, 4])[:2], model.scores([1, 2, 9, 8])[:2])


def test_every_beginning_is_answered_as_if_the_session_ended_there(model):
    full_scores = model.scores([5, 3, 5, 1, 3])
    for end in range(1, 6):
        torch.testing.assert_close(full_scores[end - 1], model.scores([5, 3, 5, 1, 3][:end])[-1])


def test_padding_after_the_end_changes_nothing(model):
    torch.testing.assert_close(model.scores([1, 2]), model.scores([1, 2, 0, 0]))


def test_order_of_events_matters(model):
    assert not torch.allclose(model.vectors([1, 2, 3])[-1], model.vectors([2, 1, 3])[-1], atol=1e-3)


def test_action_matters(model):
    assert not torch.allclose(model.vectors([1, 2], [1, 1])[-1], model.vectors([1, 2], [1, 2])[-1], atol=1e-3)


def test_session_longer_than_its_distances_is_answered(model):
    assert torch.isfinite(model.scores([1, 2, 3, 4, 5, 6, 7, 8])).all()


def repeats(model: OneSession, items: list[int]) -> list[dict[int, float]]:
    """Return what is added to the score of each item after each event, the session's readiness aside."""
    torch.nn.init.zeros_(model.network.repeats.readiness.weight)
    torch.nn.init.zeros_(model.network.repeats.readiness.bias)
    rows = torch.tensor([items])
    with torch.no_grad():
        vectors, item_vectors = model.network(model.table, rows, (rows > 0).long())
        queries = model.network.queries(vectors, item_vectors, rows, rows > 0)
    bonuses: list[dict[int, float]] = [{} for _ in items]
    for index, row, added in zip(
        queries.query_index.tolist(), queries.rows.tolist(), queries.bonus.tolist(), strict=True
    ):
        assert row not in bonuses[index]
        bonuses[index][row] = added
    return bonuses


def test_item_of_the_session_is_scored_by_how_long_ago_and_how_often_it_was_there(model):
    table = 10 * model.network.repeats.table
    expected = [
        {7: table[0, 0]},
        {7: table[1, 0], 9: table[0, 0]},
        {7: table[0, 1], 9: table[1, 0]},
        {7: table[0, 2], 9: table[2, 0]},
    ]
    for bonuses, target in zip(repeats(model, [7, 9, 7, 7]), expected, strict=True):
        assert bonuses == pytest.approx({row: value.item() for row, value in target.items()})


def test_score_of_an_item_that_the_session_has_not_had_is_a_cosine_by_temperature(model):
    scores = model.scores([1, 2])[-1]
    assert scores[2:].abs().max() <= 1 / CONFIG.temperature + 1e-3


def test_new_model_wants_what_the_session_has():
    torch.manual_seed(0)
    model = SessionTransformer(ModelConfig(dim=32), items=50).eval()
    nobody = Neighbours(np.zeros((51, 1), dtype=np.int32), np.zeros((51, 1), dtype=np.float32))
    rows = torch.tensor([[5, 9]])
    with torch.no_grad():
        table = model.table(NeighbourMatrix(nobody, torch.device("cpu")))
        vectors, item_vectors = model(table, rows, torch.ones_like(rows))
        target = model.queries(vectors, item_vectors, rows, rows > 0).vectors[-1]
    assert set((table @ target).topk(2).indices.tolist()) == {5, 9}


@pytest.fixture
def matrix() -> tuple[NeighbourMatrix, torch.Tensor]:
    """Neighbours of five rows, sparse and as a matrix (5, 5)."""
    rows = np.array([[0, 0], [2, 3], [1, 0], [4, 1], [0, 0]], dtype=np.int32)
    shares = np.array([[0, 0], [0.5, 0.5], [1, 0], [0.3, 0.7], [0, 0]], dtype=np.float32)
    matrix = torch.zeros(5, 5)
    matrix[torch.arange(5)[:, None], torch.from_numpy(rows).long()] = torch.from_numpy(shares)
    return NeighbourMatrix(Neighbours(rows, shares), torch.device("cpu")), matrix


def test_table_and_its_gradient_are_those_of_torch(matrix):
    torch.manual_seed(0)
    model = SessionTransformer(ModelConfig(dim=4, heads=1), items=4)
    table = model.table(matrix[0])
    expected = functional.normalize(model.item + model.gate * (matrix[1] @ model.item), dim=1)
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
    grown = model.grow(25)
    assert torch.equal(grown.item[:21], model.item)
    assert grown.item.shape == (26, 16)
    assert torch.equal(grown.readout.query.weight, model.readout.query.weight)


def test_random_weights_have_the_names_and_shapes_of_a_model():
    made = extract_weights(SessionTransformer(CONFIG, items=20), torch.zeros(21, 16))
    assert {name: array.shape for name, array in random_weights(CONFIG, 20).items()} == {
        name: array.shape for name, array in made.items()
    }


def reasons(model: OneSession, items: list[int]) -> torch.Tensor:
    """Return what each event of a session brought to the score of each item: (V - 1, T)."""
    rows, all_rows = torch.tensor([items]), torch.arange(1, len(model.table))
    with torch.no_grad():
        ends = torch.tensor([len(items) - 1])
        return model.network.reasons(model.table, rows, torch.ones_like(rows), ends, all_rows[None])[0]


def test_last_event_brings_what_the_session_before_it_lacks(model):
    scores = model.scores([5, 3, 5, 1])
    torch.testing.assert_close(reasons(model, [5, 3, 5, 1])[:, -1], scores[-1] - scores[-2])


def test_only_event_brings_the_whole_score(model):
    torch.testing.assert_close(reasons(model, [5])[:, 0], model.scores([5])[0])


def test_event_that_is_left_out_might_as_well_never_have_been():
    """Exactly so where distances count for nothing, and what other events made of it is not read: in one layer."""
    model = OneSession(dataclasses.replace(CONFIG, layers=1))
    (block,), readout, repeats = model.network.blocks, model.network.readout, model.network.repeats
    for parameter in (block.attention.distance, readout.distance, readout.key.weight, readout.key.bias):
        torch.nn.init.zeros_(parameter)
    with torch.no_grad():
        repeats.table[:] = repeats.table[0]
    items = [5, 3, 5, 1, 3, 9]
    full_scores = model.scores(items)[-1]
    for index, contribution in enumerate(reasons(model, items).T):
        without = model.scores([*items[:index], *items[index + 1 :]])[-1]
        torch.testing.assert_close(contribution, full_scores - without)


def test_events_after_the_end_bring_nothing(model):
    rows, all_rows = torch.tensor([[5, 3, 0]]), torch.arange(1, len(model.table))
    with torch.no_grad():
        contribution = model.network.reasons(model.table, rows, (rows > 0).long(), torch.tensor([1]), all_rows[None])[0]
    torch.testing.assert_close(contribution[:, :2], reasons(model, [5, 3]))
    assert (contribution[:, 2] == 0).all()
