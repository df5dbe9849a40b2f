"""Errors of retraining. `schemas/errors.py` draws the whole tree."""

from clickscore.schemas.errors import ClickscoreError


class RetrainingError(ClickscoreError):
    """A retraining cannot run: its folder holds something else, or an option does not fit."""


class RetrainingBusyError(RetrainingError):
    """Another retraining runs at the moment."""
