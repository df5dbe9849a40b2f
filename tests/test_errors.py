"""The error tree: the drawing in `schemas/errors.py` is the real hierarchy, and the command line prints one line."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from clickscore.schemas import errors
from clickscore.stream.__main__ import main
from clickscore.stream.scoring.bundle import check_bundle
from clickscore.stream.scoring.bundle_store import BundleStore
from tests.bundles import small_bundle

ROOT = Path(__file__).parent.parent
FOLDERS = ("schemas", "model", "export", "stream", "backtest", "retraining")


def drawn_tree() -> dict[str, str]:
    """Return each class of the drawing with its parent."""
    parents: dict[str, str] = {}
    path: list[str] = []
    for indent, name in re.findall(r"^( *)[*+-] (\w+Error)\b", errors.__doc__ or "", re.MULTILINE):
        depth = len(indent) // 2
        path[depth:] = [name]
        parents[name] = path[depth - 1] if depth else "Exception"
    return parents


def written_classes() -> dict[str, str]:
    """Return each class of the sources that is an exception, with its parent."""
    classes: dict[str, str] = {}
    for file in (file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                bases = [base.id for base in node.bases if isinstance(base, ast.Name)]
                if parents := [name for name in bases if name.endswith(("Error", "Exception"))]:
                    classes[node.name] = parents[0]
    return classes


@pytest.mark.slow
def test_drawing_is_the_hierarchy_and_there_is_no_other_error() -> None:
    assert drawn_tree() == written_classes()


def test_each_error_of_the_drawing_has_words() -> None:
    for name in drawn_tree():
        assert re.search(rf"{name}\s+\w+ \w+", errors.__doc__ or ""), name


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ["settings", "--config", "none.toml"],
            "clickscore: the settings file none.toml does not exist: correct --config or CLICKSCORE_CONFIG\n",
        ),
        pytest.param(
            ["train", __file__, "--out", "out", "--set", "dim"],
            "clickscore: --set takes NAME=VALUE, not 'dim'\n",
            marks=pytest.mark.train,
        ),
    ],
)
def test_error_is_one_line_and_exit_code_1(arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 1
    assert capsys.readouterr().err == line


def test_folder_that_cannot_be_written_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, place = tmp_path / "store", tmp_path / "file" / "copies"
    (tmp_path / "file").touch()
    version = BundleStore(str(store), check_bundle).push(small_bundle(tmp_path / "small")).version
    with pytest.raises(SystemExit) as ended:
        main(["bundle", "fetch", version, "--bundle-store", str(store), "--out", str(place)])
    assert ended.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"clickscore: {place}")
    assert line.endswith("Not a directory")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["worke"], "clickscore: no such command 'worke'. Did you mean `worker`? (see `clickscore --help`)\n"),
        (["xyzzy"], "clickscore: no such command 'xyzzy' (see `clickscore --help`)\n"),
        (
            ["tail", "--since", "1h", "--from-beginning"],
            "clickscore: --from-beginning and --since cannot be combined: leave out one of them "
            "(see `clickscore tail --help`)\n",
        ),
        (["split", "none.jsonl"], "(see `clickscore split --help`)\n"),
        (["topics", "list", "--coun", "3"], "(see `clickscore topics list --help`)\n"),
    ],
)
def test_usage_error_is_one_line_in_the_same_style(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    (printed,) = capsys.readouterr().err.splitlines(keepends=True)
    assert printed.startswith("clickscore: ")
    assert printed.endswith(line)


def test_help_and_version_end_with_0(capsys: pytest.CaptureFixture[str]) -> None:
    for argument in ("--help", "--version"):
        with pytest.raises(SystemExit) as ended:
            main([argument])
        assert not ended.value.code
    assert "Start here" in capsys.readouterr().out


def raised_messages() -> Iterator[tuple[str, str]]:
    """Yield place and text of each message that the sources raise on purpose; a value in a text becomes `{}`."""
    for file in (file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)):
            assignments = [node for node in ast.walk(function) if isinstance(node, ast.Assign)]
            messages = {node.lineno: node.value for node in assignments if ast.unparse(node.targets[0]) == "message"}
            for node in ast.walk(function):
                if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
                    error, value = ast.unparse(node.exc.func).removeprefix("click."), node.exc.args[0]
                    if error not in {*drawn_tree(), "UsageError", "BadParameter", "ClickException"}:
                        continue
                    if ast.unparse(value) == "message" and messages:  # else a parameter of the function
                        value = messages[max(line for line in messages if line < node.lineno)]
                    if isinstance(value, ast.Constant) and isinstance(value.value, str):
                        yield f"{file.name}:{node.lineno}", value.value
                    elif isinstance(value, ast.JoinedStr):
                        texts = (str(part.value) if isinstance(part, ast.Constant) else "{}" for part in value.values)
                        yield f"{file.name}:{node.lineno}", "".join(texts)


OWN_NAMES = ("Apache ", "Kafka ", "ONNX Runtime ")
"""Names that begin a message with a capital letter."""


@pytest.mark.slow
def test_messages_have_one_style() -> None:
    messages = list(raised_messages())
    assert len(messages) > 150
    for place, text in messages:
        where = f"{place}: {text}"
        assert not text[:1].isupper() or text.startswith(OWN_NAMES), where
        assert not text.rstrip().endswith((".", "!")), where
        assert not re.search(r"[Pp]lease|[Ss]orry|!|\n", text), where
        assert not re.search(r"clickscore\[", text), f"{where}: no package index has the product"
        assert len(text.split()) > 2 or "{}" in text, where
