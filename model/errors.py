"""Errors of training. `schemas/errors.py` draws the whole tree."""

from clickscore.schemas.errors import ClickscoreError


class DataError(ClickscoreError):
    """Training data cannot be read, holds something else, or is too little."""


class TrainingError(ClickscoreError):
    """A training, its checkpoint or its bundle does not fit the command."""
