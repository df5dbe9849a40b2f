"""Errors, by what becomes of them.

* ClickscoreError          anything we raise on purpose; the command line prints it without a traceback
  + SettingsError          a setting is wrong or contradicts another
  + BundleError            a bundle is not what its manifest says: the worker stops before it joins the group
  + BrokerError            Kafka cannot be reached, or refuses
    - TopicMissingError    a topic is missing or has another shape than the worker needs
  + InputFileError         a file cannot be read as the format it was said to have
  + OutputFileError        a file cannot be written
  + WorkerDiedError        a worker that we started as a child ended by itself

A bad record is no error: it becomes a dead letter (see `stream.pipeline`). A bug is no error of ours either: it stops
the worker with its traceback, and the event stays uncommitted.
"""


class ClickscoreError(Exception):
    """Anything we raise on purpose. The message says what to do."""


class SettingsError(ClickscoreError):
    """A setting is wrong or contradicts another."""


class BundleError(ClickscoreError):
    """A bundle is not what its manifest says."""


class BrokerError(ClickscoreError):
    """Kafka cannot be reached, or refuses."""


class TopicMissingError(BrokerError):
    """A topic is missing or has another shape than the worker needs."""


class InputFileError(ClickscoreError):
    """A file cannot be read as the format it was said to have."""


class OutputFileError(ClickscoreError):
    """A file cannot be written."""


class WorkerDiedError(ClickscoreError):
    """A worker that we started as a child ended by itself; the message has the end of its log."""
