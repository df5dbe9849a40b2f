"""Errors of the engine. `schemas/errors.py` draws the whole tree."""

from clickscore.schemas.errors import ClickscoreError


class SettingsError(ClickscoreError):
    """A setting has a wrong value, or two settings contradict each other."""


class BundleError(ClickscoreError):
    """A bundle contradicts the manifest."""


class BrokerError(ClickscoreError):
    """Kafka cannot be reached, or refuses a request."""


class TopicMissingError(BrokerError):
    """A topic is missing, or differs from the worker's needs."""


class SnapshotError(ClickscoreError):
    """A record of `session-snapshots` cannot be read."""


class ExtraMissingError(ClickscoreError):
    """A command needs an optional dependency that is not installed."""


class InputFileError(ClickscoreError):
    """A file cannot be read, or has another format than the named format."""


class WorkerDiedError(ClickscoreError):
    """A worker in a child process has ended by itself. The message has the end of the worker's log."""
