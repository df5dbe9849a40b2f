"""Errors: one tree of everything that is raised on purpose.

* ClickscoreError            the root: the command line prints the message in one line and exits with 1
  + SettingsError            a setting has a wrong value, or two settings contradict each other
  + BundleError              a bundle is not what its manifest says: the worker stops before it joins the group
  + BrokerError              Kafka cannot be reached, or refuses a request
    - TopicMissingError      a topic is missing, or differs from what the worker needs
  + InputFileError           a file cannot be read, or is not in the format that was named
    - BrokenDataError        compressed data is damaged
  + OutputFileError          a file cannot be written
  + WorkerDiedError          a worker that runs as a child process has ended by itself
  + DataError                training data cannot be read, holds something else, or is too little
  + TrainingError            a training, its checkpoint or its bundle does not fit the command
  + ExportError              a model cannot become a bundle

A bad record is no error: it becomes a dead letter (see `stream.pipeline`). A bug is not in the tree either: it stops
the worker with its traceback, and the event stays uncommitted.

A message says what failed and what to do. The classes stand in the `errors.py` of the folder that raises them.
"""


class ClickscoreError(Exception):
    """Base of every error that is raised on purpose. The message says what failed and what to do."""
