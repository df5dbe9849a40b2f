"""Errors of retraining. `schemas/errors.py` draws the whole tree."""

from clickscore.schemas.errors import ClickscoreError


class RetrainingError(ClickscoreError):
    """A retraining cannot run, because another one runs or its folder holds something else."""
