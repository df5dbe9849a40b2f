"""The distribution takes one name in site-packages, `clickscore`, and has every folder under that name."""

import ast
import tomllib
from collections.abc import Iterator

import pytest

from docs.generate import PACKAGES, ROOT

SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
SOURCES = sorted(path for folder in (*PACKAGES, "bench", "docs", "tests") for path in (ROOT / folder).rglob("*.py"))


def imported_modules(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield str(node.module)


def test_packages_are_the_folders_with_an_init_file() -> None:
    folders = {path.parent.relative_to(ROOT) for name in PACKAGES for path in (ROOT / name).rglob("__init__.py")}
    assert sorted(SETUPTOOLS["packages"]) == sorted(f"clickscore.{'.'.join(folder.parts)}" for folder in folders)


def test_every_folder_with_code_has_an_init_file() -> None:
    for name in PACKAGES:
        for path in (ROOT / name).rglob("*.py"):
            assert (path.parent / "__init__.py").exists(), path.parent


def test_folders_at_the_top_are_mapped_below_the_import_name() -> None:
    assert SETUPTOOLS["package-dir"] == {f"clickscore.{name}": name for name in PACKAGES}


@pytest.mark.slow
def test_imports_name_clickscore() -> None:
    for path in SOURCES:
        for module in imported_modules(ast.parse(path.read_text(encoding="utf-8"))):
            assert module.split(".")[0] not in PACKAGES, f"{path}: {module}"
