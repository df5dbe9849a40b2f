"""Errors: the tree of all errors that are raised on purpose.

* ClickscoreError            the root: the command line prints the message in a line and exits with 1
  + SettingsError            a setting has a wrong value, or two settings contradict each other
    - PolicyError            a policy file is missing or wrong, or contradicts itself
  + UnknownSchemaError       a schema registry has no usable schema of an id: the record becomes a dead letter
  + BundleError              a bundle contradicts the manifest: the worker stops before joining the group
  + RolloutError             a rollout cannot be changed in this way, such as promoted without a challenger
  + BrokerError              Kafka cannot be reached, or refuses a request
    - TopicMissingError      a topic is missing, or differs from the worker's needs
  + UnpackError              a record batch of Kafka is broken, or its codec is unknown
  + SnapshotError            a record of session-snapshots cannot be read: the worker stops before it decides anything
  + ExtraMissingError        a command needs an optional dependency that is not installed
  + RequestError             a request to the gateway cannot be answered: the client gets the status and the reason
  + InputFileError           a file cannot be read, or has another format than the named format
    - BrokenDataError        compressed data is damaged
    - MappingError           a mapping is missing or wrong
  + OutputFileError          a file cannot be written
  + WorkerDiedError          a worker in a child process has ended by itself
  + DataError                training data cannot be read, has the wrong form, or is too little
  + TrainingError            a training, a checkpoint or a bundle does not fit the command
  + ExportError              a model cannot become a bundle
  + RetrainingError          a retraining cannot run: its folder holds something else, or an option does not fit
    - RetrainingBusyError    another retraining runs at the moment
  + GraphTrialError          a trial run of a graph shows a problem that a worker would meet

A bad record is no error: the record becomes a dead letter (see `stream.pipeline`). A bug is not in the tree either: a
bug stops the worker with a traceback, and the event stays uncommitted.

A message names the failure and the remedy. Each folder defines the errors of its code in a file `errors.py`.
"""


class ClickscoreError(Exception):
    """Base of every error that is raised on purpose. The message names the failure and the remedy."""


class OutputFileError(ClickscoreError):
    """A file cannot be written."""
