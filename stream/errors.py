"""Errors of the engine. `schemas/errors.py` draws the whole tree."""

from clickscore.schemas.errors import ClickscoreError


class SettingsError(ClickscoreError):
    """A setting has a wrong value, or two settings contradict each other."""


class BundleError(ClickscoreError):
    """A bundle is not what its manifest says."""


class BrokerError(ClickscoreError):
    """Kafka cannot be reached, or refuses a request."""


class TopicMissingError(BrokerError):
    """A topic is missing, or differs from what the worker needs."""


class InputFileError(ClickscoreError):
    """A file cannot be read, or is not in the format that was named."""


class OutputFileError(ClickscoreError):
    """A file cannot be written."""


class WorkerDiedError(ClickscoreError):
    """A worker that runs as a child process has ended by itself. The message has the end of its log."""
