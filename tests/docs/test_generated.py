from pathlib import Path

import pytest

from docs.generate import ROOT, documents, file_map, with_parts

DOCUMENTS = documents()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_generated_parts_are_those_of_the_code(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == DOCUMENTS[path], "stale: `make docs` writes it anew"


def test_no_schema_is_left_of_what_is_gone() -> None:
    folder = ROOT / "docs" / "schemas"
    assert set(folder.iterdir()) == {path for path in DOCUMENTS if path.parent == folder}


def test_architecture_and_operations_have_their_generated_parts() -> None:
    marks = {
        "docs/architecture.md": ["layers", "map"],
        "docs/operations.md": ["topics", "metrics", "settings"],
    }
    for name, parts in marks.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        for part in parts:
            assert f"<!-- generated: {part} -->" in text


def test_every_module_says_what_it_is() -> None:
    for line in file_map().splitlines():
        sentence = line.split("` ", 1)[-1] if "** " not in line else line.split("** ", 1)[1]
        assert len(sentence) > 10, f"no docstring: {line}"


def test_mark_that_is_not_ended_is_refused() -> None:
    with pytest.raises(ValueError, match="not ended"):
        with_parts("<!-- generated: map -->\n", {"map": "x\n"})
