"""Errors of export. `schemas/errors.py` draws the whole tree."""

from clickscore.schemas.errors import ClickscoreError


class ExportError(ClickscoreError):
    """A model cannot become a bundle."""
