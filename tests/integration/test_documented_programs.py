"""The programs of the documents, run twice beside a real worker: each run reads the decisions of its own events."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from clickscore.schemas.topics import TOPICS
from tests.integration.live import ROOT, installation

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

PROGRAM_TIMEOUT_S = 60


def program(page: str, broker: str, prefix: str) -> str:
    """Return the program of a page, for this broker and these topics."""
    text = (ROOT / page).read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    code = code.replace('"127.0.0.1:9092"', repr(broker))
    for topic in TOPICS:
        code = code.replace(f'"{topic.name}"', repr(prefix + topic.name))
    return code


def run(file: Path) -> str:
    result = subprocess.run(
        [sys.executable, str(file)],
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=PROGRAM_TIMEOUT_S,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize(("page", "lines"), [("README.md", 1), ("docs/integration.md", 6)])
def test_program_reads_the_decisions_of_its_events_in_each_run(
    broker: str, tmp_path: Path, page: str, lines: int
) -> None:
    bundle = ROOT / "stream" / "bundles" / "demo"
    with installation(broker, tmp_path, bundle=str(bundle)) as live:
        live.start_worker().wait_restored()
        file = tmp_path / "program.py"
        file.write_text(program(page, broker, live.settings.kafka.topic_prefix), encoding="utf-8")
        for _ in range(2):
            printed = run(file).splitlines()
            assert len(printed) == lines
            lists = [line for line in printed if "[" in line]
            assert all("['" in line for line in lists)  # no list is empty
            assert "birch-kettle" not in lists[-1]  # the item that was just put into the cart
