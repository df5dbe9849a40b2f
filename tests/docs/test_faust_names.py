"""Private names of Faust and aiokafka: the decision record lists exactly the names that the code leans on."""

import ast
import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest

from clickscore.stream.worker import app, transport
from docs.generate import ROOT

pytestmark = pytest.mark.slow


def _private_names_listed() -> set[str]:
    """Return the names of Faust and aiokafka that the decision record lists."""
    (record,) = (ROOT / "docs/decisions").glob("*-whole-batches-through-faust.md")
    text = record.read_text(encoding="utf-8").split("**Dependence on internals.**")[1].split("**What we gave up.**")[0]
    return set(re.findall(r"`(_?[a-z_]+)`", text))


def _private_names_used(path: Path) -> set[str]:
    """Return the private attributes that a file reads or sets without defining them, and what it uses behind these."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    modules |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    if not {name.split(".")[0] for name in modules} & {"faust", "aiokafka"}:
        return set()
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    own |= {node.attr for node in attributes if isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self"}
    public = {"_exit", "_make", "_replace", "_asdict"}  # documented by Python, for `os` and for named tuples
    foreign = {node.attr for node in attributes if re.match("_[a-z]", node.attr)} - own - public
    behind = [node for node in attributes if isinstance(node.value, ast.Attribute) and node.value.attr in foreign]
    return foreign | {node.attr for node in behind} - own


def _overridden_names(module: ModuleType) -> set[str]:
    """Return the methods of libraries' classes that the classes of a module override."""
    classes = [kind for kind in vars(module).values() if isinstance(kind, type) and kind.__module__ == module.__name__]
    return {
        name
        for kind in classes
        for name, value in vars(kind).items()
        if inspect.isfunction(value)
        and not name.startswith("__")
        and any(name in vars(base) for base in kind.__mro__[1:] if not base.__module__.startswith("clickscore"))
    }


def test_private_names_of_faust_and_aiokafka_that_are_used_are_listed() -> None:
    used = set().union(*map(_private_names_used, (ROOT / "stream").rglob("*.py")))
    assert used | _overridden_names(transport) | _overridden_names(app) <= _private_names_listed()


def test_private_names_of_faust_and_aiokafka_that_are_listed_are_used() -> None:
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "stream").rglob("*.py"))
    for name in _private_names_listed():
        assert re.search(rf"\b{name}\b", code), name
