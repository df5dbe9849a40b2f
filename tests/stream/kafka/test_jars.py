import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

NOWHERE = "http://127.0.0.1:9"
CLASS_PATH = (
    "import sys; from clickscore.stream.kafka.jars import class_path;"
    " print(class_path(print)); print('jgo' in sys.modules)"
)


def run(cache: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    offline = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), NOWHERE)
    environment = os.environ | offline | {"XDG_CACHE_HOME": str(cache), "NO_PROXY": "", "no_proxy": ""}
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, timeout=60, env=environment
    )


def test_download_that_fails_says_what_to_do_and_leaves_nothing_half_done(tmp_path: Path) -> None:
    cut_off = tmp_path / "clickscore" / "download-killed"
    cut_off.mkdir(parents=True)
    result = run(
        tmp_path, "-m", "clickscore.stream", "broker", "start", "--port", "0", "--data", str(tmp_path / "data")
    )
    assert result.returncode == 1
    assert "could not be downloaded from Maven Central" in result.stderr
    assert "KAFKA_BOOTSTRAP_SERVERS" in result.stderr
    assert "Traceback" not in result.stderr
    assert [each.name for each in (tmp_path / "clickscore").iterdir()] == ["download.lock"]


def test_jars_that_are_here_need_no_network(tmp_path: Path) -> None:
    folder = tmp_path / "clickscore" / "kafka-4.3.1-log4j-2.25.4"
    folder.mkdir(parents=True)
    for name in ("b.jar", "a.jar"):
        (folder / name).touch()
    result = run(tmp_path, "-c", CLASS_PATH)
    assert result.stdout.splitlines() == [os.pathsep.join([f"{folder}/a.jar", f"{folder}/b.jar"]), "False"]


def test_cache_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "clickscore").write_text("", encoding="utf-8")
    result = run(
        tmp_path, "-m", "clickscore.stream", "broker", "start", "--port", "0", "--data", str(tmp_path / "data")
    )
    assert result.returncode == 1
    assert "cannot be kept in" in result.stderr
    assert "Traceback" not in result.stderr
