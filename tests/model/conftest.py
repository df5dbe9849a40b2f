"""Fixtures of the model's tests."""

from importlib.util import find_spec

import pytest


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Train on one thread: these models are too small for two, and other tests may run beside."""
    if find_spec("torch"):  # a serving environment has none
        import torch  # noqa: PLC0415 (only these tests need it)

        torch.set_num_threads(1)
