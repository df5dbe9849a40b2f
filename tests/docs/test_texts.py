"""What the documents say: examples that work, commands and settings that there are, links that lead somewhere."""

import importlib
import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest

from clickscore.backtest.arms import read_arms, validate_arms
from clickscore.schemas.catalogue import decode_campaign, decode_item
from clickscore.schemas.decisions import decode_decision
from clickscore.schemas.events import decode_record
from clickscore.schemas.sessions import decode_session
from clickscore.stream.__main__ import cli
from clickscore.stream.event_files.formats.mapping import decode_mapping
from clickscore.stream.policy.policy_file import load_policy
from clickscore.stream.settings import SETTINGS, Settings, load
from clickscore.stream.worker.health import HealthReport
from clickscore.stream.worker.prometheus_metrics import Metrics
from docs.generate import ROOT

TEXTS = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "docs/decisions/*.md", "docker-compose.yml", "deploy/*.yml")
    for path in ROOT.glob(pattern)
)
PAGES = [path for path in TEXTS if path.suffix == ".md"]

each_page = pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
each_text = pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.relative_to(ROOT).as_posix())


def blocks(path: Path, language: str) -> list[str]:
    found = re.findall(rf"^```{language}\n(.*?)^```$", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [str(block) for block in found]


def command_lines(path: Path) -> list[str]:
    """Every `clickscore ...` of a page: in code blocks, and in the text."""
    text = path.read_text(encoding="utf-8")
    lines = [line for block in blocks(path, "") for line in block.splitlines()]
    lines += [" ".join(code.split()) for code in re.findall(r"`(clickscore [^`]+)`", text)]
    stripped = [re.sub(r"^(?:[A-Z_]+=\S+ )+", "", line.strip()).split("  ")[0].split(" #")[0] for line in lines]
    return [line.split(" > ")[0].split(" | ")[0] for line in stripped if line.startswith("clickscore ")]


def command_of(words: list[str]) -> tuple[click.Command, list[str]]:
    """Return the command that these words name, and what is left for it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extra = project["entry-points"]["clickscore.commands"].get(words[0])
    if extra:
        module, name = extra.split(":")
        found: Any = getattr(importlib.import_module(module), name)
    else:
        found = cli.get_command(click.Context(cli), words[0])
    assert found, f"no command {words[0]}"
    words = words[1:]
    while isinstance(found, click.Group) and words and not words[0].startswith("-"):
        below = found.get_command(click.Context(found), words[0])
        assert below, f"no command {words[0]}"
        found, words = below, words[1:]
    return found, words


@each_page
def test_commands_are_there_with_their_options(path: Path) -> None:
    for line in command_lines(path):
        command, rest = command_of(shlex.split(line)[1:])
        options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)} | {
            "--help"
        }
        for word in rest:
            if word.startswith("--"):
                assert word.split("=")[0] in options, f"{line}: no option {word}"


@each_page
def test_links_lead_to_files(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8")):
        if not target.startswith("https://"):
            assert (path.parent / target).exists(), target


@each_page
def test_files_that_are_named_are_there(path: Path) -> None:
    named = re.findall(
        r"`((?:schemas|model|export|stream|backtest|retraining|tests|deploy|docs)/[\w./-]+\.\w+)`",
        path.read_text(encoding="utf-8"),
    )
    for name in named:
        assert (ROOT / name).exists(), name


@each_page
def test_variables_are_settings(path: Path) -> None:
    names = re.findall(r"\bCLICKSCORE_([A-Z_]+)\b", path.read_text(encoding="utf-8"))
    assert {name.lower() for name in names} <= {*SETTINGS, "config", "name", "bundle_dir", "partitions"}


@each_text
def test_no_path_of_a_machine(path: Path) -> None:
    assert not re.search(r"(?<![\w.])/(?:work|root|home/(?!clickscore)|tmp)/", path.read_text(encoding="utf-8"))


@each_page
def test_toml_examples_are_settings(path: Path, tmp_path: Path) -> None:
    for number, block in enumerate(blocks(path, "toml")):
        file = tmp_path / f"{number}.toml"
        file.write_text(block)
        if "[fields]" in block:
            assert decode_mapping(block.encode(), path.name)
            continue
        if "[[arm]]" in block:
            assert validate_arms(read_arms(file, Settings()))
            continue
        if "owner" in block:
            assert load_policy(str(file))
            continue
        settings, _ = load({}, {}, file)
        assert settings


def test_make_targets_are_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for path in PAGES:
        assert set(re.findall(r"\bmake ((?!it\b|them\b|up\b)[a-z-]+)`", path.read_text(encoding="utf-8"))) <= targets


# Examples


@each_page
def test_python_examples_compile(path: Path) -> None:
    for example in blocks(path, "python"):
        compile(example, str(path), "exec")


@pytest.mark.parametrize("name", ["README.md", "docs/integration.md"])
def test_python_example_sends_what_the_schemas_take(name: str) -> None:
    (example,) = blocks(ROOT / name, "python")
    constants: dict[str, Any] = {}
    exec(compile(example.split("async def main")[0], name, "exec"), constants)
    events = constants.get("EVENTS") or [constants["EVENT"]]
    for event in events:
        decode_record(json.dumps(event).encode())
    assert len({event["event_id"] for event in events}) == len(events)


def test_python_example_sends_a_catalogue_item_and_a_campaign() -> None:
    (example,) = blocks(ROOT / "docs/integration.md", "python")
    constants: dict[str, Any] = {}
    exec(compile(example.split("async def main")[0], "integration.md", "exec"), constants)
    decode_item(json.dumps(constants["ITEM"]).encode())
    decode_campaign(json.dumps(constants["CAMPAIGN"]).encode())


@pytest.mark.parametrize("name", ["README.md", "docs/integration.md"])
def test_python_example_has_other_event_ids_in_each_run(name: str) -> None:
    (example,) = blocks(ROOT / name, "python")
    ids: list[str] = []
    for _ in range(2):
        constants: dict[str, Any] = {}
        exec(compile(example.split("async def main")[0], name, "exec"), constants)
        ids += [event["event_id"] for event in constants.get("EVENTS") or [constants["EVENT"]]]
    assert len(set(ids)) == len(ids)


def test_json_examples_are_events_decisions_or_sessions() -> None:
    examples = blocks(ROOT / "docs/architecture.md", "json")
    assert examples
    for example in examples:
        value = json.loads(example)
        kind = value.get("type")
        decode = (
            decode_session if kind is None else decode_decision if kind in {"recommendation", "ad"} else decode_record
        )
        again = json.loads(_encoded(decode(example.encode())))
        assert {name: again[name] for name in value} == value


def _encoded(value: Any) -> bytes:
    from msgspec import json as codec  # noqa: PLC0415

    return codec.encode(value)


# Operations


def test_every_metric_has_its_word_of_advice() -> None:
    text = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    advice = text.split("What to watch")[1].split("## Settings")[0]
    for family in Metrics().registry.collect():
        assert family.name in advice, family.name


def test_every_field_of_health_is_explained() -> None:
    text = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    health = text.split("## Health")[1].split("## Metrics")[0]
    for field in HealthReport.__struct_fields__:
        assert f"`{field}`" in health, field


# Decisions


def test_decision_records_are_numbered_without_gaps() -> None:
    numbers = sorted(path.name[:4] for path in (ROOT / "docs/decisions").glob("[0-9]*.md"))
    assert numbers == [f"{number:04}" for number in range(1, len(numbers) + 1)]
