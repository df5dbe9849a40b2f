import pytest
import torch
from torch.nn import functional

from model import loss
from model.loss import catalogue_loss

pytestmark = pytest.mark.train


@pytest.fixture
def given() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Nine wanted vectors, a table of 50 items, and a target for each vector."""
    torch.manual_seed(0)
    wanted, table = torch.randn(9, 8, requires_grad=True), torch.randn(50, 8, requires_grad=True)
    return wanted, table, torch.randint(50, (9,))


@pytest.mark.parametrize("at_once", [1, 150, 10_000])
def test_loss_and_gradients_are_those_of_torch(given, monkeypatch, at_once):
    monkeypatch.setitem(loss.SCORES, "cpu", at_once)
    wanted, table, targets = given
    ours = 3 * catalogue_loss(wanted, table, targets)
    theirs = 3 * functional.cross_entropy(wanted @ table.T, targets)
    torch.testing.assert_close(ours, theirs)
    for own, expected in zip(
        torch.autograd.grad(ours, (wanted, table)), torch.autograd.grad(theirs, (wanted, table)), strict=True
    ):
        torch.testing.assert_close(own, expected)


def test_loss_of_large_scores_is_finite(given):
    wanted, table, targets = given
    assert torch.isfinite(catalogue_loss(1000 * wanted, table, targets))


def test_loss_of_no_rows_is_0(given):
    _, table, _ = given
    assert catalogue_loss(torch.zeros(0, 8), table, torch.zeros(0, dtype=torch.long)).item() == 0
