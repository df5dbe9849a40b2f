"""Errors of training. `schemas/errors.py` draws the whole tree."""

from clickscore.schemas.errors import ClickscoreError


class DataError(ClickscoreError):
    """Training data cannot be read, has the wrong form, or is too little."""


class TrainingError(ClickscoreError):
    """A training, a checkpoint or a bundle does not fit the command."""
