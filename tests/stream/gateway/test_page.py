"""The commands of docs/gateway.md, run as they stand there against a running gateway."""

import asyncio
import json
import re
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from clickscore.stream.gateway.api_keys import KeyRing, make_key
from docs.generate import ROOT
from tests.stream.gateway.log_double import SOURCE
from tests.stream.gateway.running import running_gateway

pytestmark = pytest.mark.slow

PAGE = (ROOT / "docs/gateway.md").read_text(encoding="utf-8")
STEPS = re.findall(r"^```sh\n(.*?)^```\n(?:```json\n(.*?)^```\n)?", PAGE, re.MULTILINE | re.DOTALL)


async def output(script: str, folder: Path) -> str:
    process = await asyncio.create_subprocess_exec(
        "bash", "-euc", script, cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    stdout, stderr = await process.communicate()
    assert process.returncode == 0, stderr.decode()
    return stdout.decode()


def names(value: Any) -> Any:
    """Return a JSON value with its names alone: examples have other ids than a run."""
    if isinstance(value, dict):
        return {name: names(inner) for name, inner in value.items()}
    return [names(inner) for inner in value] if isinstance(value, list) else type(value)


def test_function_of_the_page_makes_user_keys() -> None:
    (program,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(program, names)
    new = make_key("shop", ["read"], "2026-03-01T08:00:00+00:00")
    for user in ("anna", "zoë/?>"):
        caller = KeyRing([new.stored]).match_user_key(names["user_key"](new.text, user), time.time())
        assert caller
        assert caller.user_id == user
    assert KeyRing([new.stored]).match_user_key(names["user_key"](new.text, "anna"), time.time() + 3600) is None


def test_commands_of_the_page_do_what_the_page_says(tmp_path: Path) -> None:
    async def run() -> list[str]:
        async with running_gateway() as gateway:
            outputs = []
            for commands, example in STEPS:
                script = commands.replace("http://127.0.0.1:8080", gateway.address)
                script = script.replace("curl ", "curl --silent --show-error --noproxy '*' ")
                script = script.replace("clickstream-events-3-0", f"{SOURCE}-0")
                script = script.replace("clickscore ", f"{sys.executable} -m clickscore.stream ")
                outputs.append(await output(script, tmp_path))
                if example:
                    assert names(json.loads(outputs[-1])) == names(json.loads(example))
            return outputs

    sent, decided, read, placed, explained, refused, keys = asyncio.run(run())
    assert json.loads(sent)["events"][0]["event_id"] == "e-1"
    assert decided.split() == ["birch-kettle"]
    newest, first = json.JSONDecoder().raw_decode(read)[0], read
    assert newest["event_id"] == "e-3"
    assert f'"decision_id":"{SOURCE}-0"' in first
    assert json.loads(placed)["placement"] == "list"
    assert json.loads(explained)["verdict"] == "equal"
    assert json.loads(refused)["status"] == 400
    key, listed = keys.split("\n", 1)
    assert listed.startswith(key.split("_")[1])
    assert "web-shop  events, read" in listed
