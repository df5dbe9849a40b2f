"""Errors of the engine. `schemas/errors.py` draws the whole tree."""

from collections.abc import Mapping, Sequence

from clickscore.schemas.errors import ClickscoreError


class SettingsError(ClickscoreError):
    """A setting has a wrong value, or two settings contradict each other."""


class PolicyError(SettingsError):
    """A policy file is missing or wrong, or contradicts itself."""


class BundleError(ClickscoreError):
    """A bundle contradicts the manifest."""


class RolloutError(ClickscoreError):
    """A rollout cannot be changed in this way."""


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


class RequestError(ClickscoreError):
    """A request to the gateway cannot be answered."""

    def __init__(
        self, status: int, detail: str, *, headers: Mapping[str, str] | None = None, faults: Sequence[object] = ()
    ) -> None:
        """Describe the failure.

        Args:
            status: Status code of HTTP.
            detail: The failure, and the remedy, in words.
            headers: Headers of the answer.
            faults: Faults of single events.
        """
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})
        self.faults = faults
