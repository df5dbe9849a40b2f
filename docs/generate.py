"""Generate: what the documents say of the code, taken from the code. `make docs` writes it, a test compares it.

Whole files: `docs/schemas/*.json` and `docs/asyncapi.yaml`. Parts of others stand between two marks,
`<!-- generated: NAME -->` and `<!-- end: NAME -->`: the file map of the README, the tables of `docs/operations.md`.
"""

import ast
import re
import sys
from pathlib import Path

from prometheus_client.metrics import MetricWrapperBase

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # `python docs/generate.py` looks beside this file only

from clickscore.schemas.topics import TOPICS  # noqa: E402
from clickscore.stream.settings import SETTINGS  # noqa: E402
from clickscore.stream.worker.metrics import Metrics  # noqa: E402
from docs.contracts import asyncapi_text, schema_files  # noqa: E402

PACKAGES = ("schemas", "model", "export", "stream", "backtest")


def documents() -> dict[Path, str]:
    """Return what each generated or partly generated file should hold."""
    found = {ROOT / "docs" / "schemas" / name: text for name, text in schema_files().items()}
    found[ROOT / "docs" / "asyncapi.yaml"] = asyncapi_text()
    parts = {"map": file_map(), "topics": topics_table(), "settings": settings_table(), "metrics": metrics_table()}
    for name in ("README.md", "docs/operations.md"):
        found[ROOT / name] = filled((ROOT / name).read_text(encoding="utf-8"), parts)
    return found


def filled(text: str, parts: dict[str, str]) -> str:
    """Return a document with its generated parts replaced.

    Raises:
        ValueError: A mark names a part that there is not, or is not ended.
    """
    for name in re.findall(r"<!-- generated: (\S+) -->", text):
        if name not in parts or f"<!-- end: {name} -->" not in text:
            message = f"no part {name!r}, or its mark is not ended"
            raise ValueError(message)
        begin, end = f"<!-- generated: {name} -->\n", f"<!-- end: {name} -->"
        before, _, rest = text.partition(begin)
        text = before + begin + parts[name] + end + rest.partition(end)[2]
    return text


def file_map() -> str:
    """Return the files of the packages, each with the first sentence of its docstring."""
    lines: list[str] = []
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py"), key=_folder_first):
            name = path.relative_to(ROOT).as_posix()
            sentence = _first_sentence(path)
            lines.append(
                f"- **`{name.removesuffix('/__init__.py')}/`** {sentence}"
                if path.name == "__init__.py"
                else f"  - `{name}` {sentence}"
            )
    return "\n".join(lines) + "\n"


def topics_table() -> str:
    """Return the topics with their keys' kind and settings, as `clickscore topics create` makes them."""
    rows = [
        (
            f"`{topic.name}`",
            "`partitions`" if topic.per_user else "1",
            ", ".join(f"`{name}={value}`" for name, value in topic.config.items()),
        )
        for topic in TOPICS
    ]
    return _table(("topic", "partitions", "settings"), rows)


def settings_table() -> str:
    """Return every setting with type, default and unit."""
    rows = [
        (
            f"`{name}`",
            "" if field.default == "" else f"`{field.default}`",
            field.unit,
            field.sentence + _choices(field.choices),
        )
        for name, field in SETTINGS.items()
    ]
    return _table(("setting", "default", "unit", "what"), rows)


def metrics_table() -> str:
    """Return every metric by the name under which Prometheus finds it, with kind, labels and meaning."""
    rows: list[tuple[str, ...]] = []
    for metric in vars(Metrics()).values():
        if not isinstance(metric, MetricWrapperBase):
            continue
        family = next(iter(metric.describe()))
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = ", ".join(f"`{label}`" for label in metric._labelnames)  # noqa: SLF001 (said nowhere else)
        rows.append((f"`{name}`", family.type, labels, family.documentation))
    return _table(("metric", "kind", "labels", "what"), rows)


def _choices(values: tuple[str, ...]) -> str:
    return ": " + ", ".join(f"`{value}`" for value in values) if values else ""


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _first_sentence(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    paragraph = " ".join(docstring.split("\n\n", 1)[0].split())
    return re.split(r"(?<=[.!?]) (?=[A-Z`])", paragraph)[0]


def _folder_first(path: Path) -> tuple[str, ...]:
    folder, name = path.parent.as_posix(), path.name
    return (folder, "" if name == "__init__.py" else name)


def main() -> None:
    """Write every document."""
    for path, text in documents().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
