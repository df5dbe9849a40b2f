"""The explanation of a decision by a child process: answers, limits, and no process left behind."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest

from clickscore.stream.errors import RequestError
from clickscore.stream.gateway.explain_process import COMMAND, EXPLAIN_AT_ONCE, ExplainProcess
from clickscore.stream.settings import Settings

pytestmark = pytest.mark.slow  # starts processes

ID = "clickstream-events-0-7"


def explain(program: str, decision_id: str = ID, limit_ms: int = 20_000, records: int = 0) -> bytes:
    settings = Settings.of(gateway_explain_ms=limit_ms, gateway_explain_records=records)
    return asyncio.run(ExplainProcess(settings, (sys.executable, "-c", program)).explain(decision_id))


def refusal(program: str, decision_id: str = ID, limit_ms: int = 20_000) -> RequestError:
    with pytest.raises(RequestError) as refused:
        explain(program, decision_id, limit_ms)
    return refused.value


def printing(explanation: object, exit_code: int = 0) -> str:
    return f"import sys; print({json.dumps([explanation])!r}); sys.exit({exit_code})"


def test_answer_is_the_explanation_that_the_process_prints() -> None:
    assert explain(printing({"event": {}, "verdict": "equal"})) == b'{"event": {}, "verdict": "equal"}'
    # Another verdict than equal has exit code 1, and is an answer as well.
    assert explain(printing({"event": {}, "verdict": "different"}, 1)) == b'{"event": {}, "verdict": "different"}'


def test_process_has_the_settings_and_the_id() -> None:
    program = "import os, sys; print([{'event': {}, 'words': sys.argv[1:], 'limit': os.environ[%r]}])"
    program = program.replace("[{", "__import__('json').dumps([{").replace("}])", "}]))")
    answer = json.loads(explain(program % "CLICKSCORE_GATEWAY_EXPLAIN_RECORDS", f"{ID}-ad", records=500))
    assert (answer["words"], answer["limit"]) == (["--warm-up", "500", "--", f"{ID}-ad"], "500")


def test_process_takes_no_module_of_the_current_folder(tmp_path: Path) -> None:
    (tmp_path / "msgspec.py").write_text("raise SystemExit('a module of the current folder')")
    finished = subprocess.run([*COMMAND, "--help"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (finished.returncode, "DECISION_ID" in finished.stdout) == (0, True), finished.stderr


_NICENESS = """
import json, os, time
ends_at = time.monotonic() + 20
while os.nice(0) != {niceness} and time.monotonic() < ends_at:
    time.sleep(0.01)
print(json.dumps([{{"event": {{}}, "niceness": os.nice(0)}}]))
"""
_NICE_GATEWAY = """
import asyncio, os, sys
from clickscore.stream.gateway.explain_process import ExplainProcess
from clickscore.stream.settings import Settings
os.nice(12)
explain = ExplainProcess(Settings.of(), (sys.executable, "-c", sys.argv[1])).explain
print(asyncio.run(explain(sys.argv[2])).decode())
"""


def test_process_of_a_nice_gateway_is_nicer_still() -> None:
    """A process without rights cannot lower a niceness: a gateway of niceness 12 could not set 10."""
    words = [sys.executable, "-c", _NICE_GATEWAY, _NICENESS.format(niceness=19), ID]
    finished = subprocess.run(words, capture_output=True, text=True, check=True)
    assert json.loads(finished.stdout)["niceness"] == 19


def test_decision_without_an_event_is_404_with_the_reason() -> None:
    error = refusal(printing({"event": None, "problem": "its event was deleted by retention"}, 1))
    assert (error.status, error.detail) == (404, "the decision cannot be explained: its event was deleted by retention")


@pytest.mark.parametrize("decision_id", ["", "-", "none", "--help", "a\0b", "other-events-0-7", f"{ID}-x"])
def test_id_of_no_decision_of_the_installation_starts_no_process(decision_id: str, tmp_path: Path) -> None:
    trace = tmp_path / "started"
    assert refusal(f"open({str(trace)!r}, 'w')", decision_id).status == 404
    assert not trace.exists()


@pytest.mark.parametrize("program", ["raise SystemExit('clickscore: no Kafka')", "print('no JSON')", "print('[]')"])
def test_process_that_fails_is_503_and_its_words_stay_in_the_log(
    program: str, caplog: pytest.LogCaptureFixture
) -> None:
    error = refusal(program)
    assert error.status == 503
    assert "no Kafka" not in error.detail
    assert ("no Kafka" in caplog.text) == ("no Kafka" in program)


def test_process_over_its_time_is_killed_and_504() -> None:
    children = psutil.Process().children()  # earlier tests may have left some, such as a pool's resource tracker
    error = refusal("import time; time.sleep(600)", limit_ms=300)
    assert (error.status, "gateway_explain_ms" in error.detail) == (504, True)
    assert psutil.Process().children() == children


def test_explanations_beyond_the_number_at_once_wait_their_turn() -> None:
    program = f"import time; time.sleep(0.3); {printing({'event': {}})}"
    slow = ExplainProcess(Settings.of(), (sys.executable, "-c", program))
    earlier_count = len(psutil.Process().children())

    async def run() -> Sequence[int]:
        numbers: list[int] = []
        requests = [asyncio.create_task(slow.explain(ID)) for _ in range(EXPLAIN_AT_ONCE + 2)]
        while not all(request.done() for request in requests):
            numbers.append(len(psutil.Process().children()) - earlier_count)
            await asyncio.sleep(0.01)
        assert {request.result() for request in requests} == {b'{"event": {}}'}
        return numbers

    assert 1 <= max(asyncio.run(run())) <= EXPLAIN_AT_ONCE


def test_explanation_that_gets_no_turn_in_time_is_503() -> None:
    settings = Settings.of(gateway_explain_ms=2_000)
    busy = ExplainProcess(settings, (sys.executable, "-c", "import time; time.sleep(600)"), turn_seconds=0.1)

    async def run() -> list[RequestError]:
        results = await asyncio.gather(*(busy.explain(ID) for _ in range(EXPLAIN_AT_ONCE + 1)), return_exceptions=True)
        return [result for result in results if isinstance(result, RequestError)]

    assert sorted(error.status for error in asyncio.run(run())) == [503, *[504] * EXPLAIN_AT_ONCE]
