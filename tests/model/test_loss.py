import pytest
import torch
from torch.nn import functional

from clickscore.model import loss
from clickscore.model.loss import Queries, catalogue_loss

pytestmark = pytest.mark.train


@pytest.fixture
def case() -> tuple[Queries, torch.Tensor, torch.Tensor]:
    """Nine queries, seven bonuses, one of which is on a target; a table of 50 rows; a target for each query."""
    torch.manual_seed(0)
    vectors = 14 * functional.normalize(torch.randn(9, 8), dim=1)
    query_index, rows = torch.tensor([0, 0, 1, 3, 3, 3, 8]), torch.tensor([1, 5, 7, 2, 3, 4, 9])
    queries = Queries(vectors.requires_grad_(), query_index, rows, torch.randn(7, requires_grad=True))
    targets = torch.randint(1, 50, (9,))
    targets[0] = 5
    return queries, functional.normalize(torch.randn(50, 8), dim=1).requires_grad_(), targets


def reference_loss(queries: Queries, table: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    scores = queries.vectors @ table[1:].T
    return functional.cross_entropy(
        scores.index_put((queries.query_index, queries.rows - 1), queries.bonus, accumulate=True),
        targets - 1,
        reduction="sum",
    )


@pytest.mark.parametrize("scores", [1, 150, 10_000])
def test_loss_and_gradients_are_those_of_torch(case, monkeypatch, scores):
    monkeypatch.setitem(loss.MICRO_BATCH_SCORES, "cpu", scores)
    queries, table, _ = case
    ours, theirs = 3 * catalogue_loss(*case), 3 * reference_loss(*case)
    torch.testing.assert_close(ours, theirs)
    learned = (queries.vectors, queries.bonus, table)
    for gradient, expected in zip(
        torch.autograd.grad(ours, learned), torch.autograd.grad(theirs, learned), strict=True
    ):
        torch.testing.assert_close(gradient, expected)


def test_half_precision_is_near(case):
    queries, table, _ = case
    ours, theirs = catalogue_loss(*case, torch.bfloat16), reference_loss(*case)
    assert ours.item() == pytest.approx(theirs.item(), abs=0.02 * 9)
    learned = (queries.vectors, queries.bonus, table)
    for gradient, expected in zip(
        torch.autograd.grad(ours, learned), torch.autograd.grad(theirs, learned), strict=True
    ):
        assert (gradient - expected).abs().max() < 0.02 * expected.abs().max()


def test_loss_of_no_rows_is_0(case):
    _, table, _ = case
    nothing = torch.zeros(0, dtype=torch.long)
    assert catalogue_loss(Queries(torch.zeros(0, 8), nothing, nothing, torch.zeros(0)), table, nothing).item() == 0
