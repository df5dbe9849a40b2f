"""Generate the parts of the documents that repeat the code. `make docs` writes them, and a test compares them.

Files that are generated as a whole: `docs/schemas/*.json`, `docs/asyncapi.yaml`, `docs/openapi.json`. Generated parts
of other files stand between the marks `<!-- generated: NAME -->` and `<!-- end: NAME -->`: the layers and the file map
in `docs/architecture.md`, the programs in `docs/clients.md`, and the tables in `docs/gateway.md` and
`docs/operations.md`.
"""

import ast
import re
import sys
import tomllib
from pathlib import Path

import orjson
from prometheus_client.metrics import MetricWrapperBase

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # `python docs/generate.py` searches only its own folder

from clickscore.schemas.topics import TOPICS  # noqa: E402
from clickscore.stream.gateway.gateway_metrics import GatewayMetrics  # noqa: E402
from clickscore.stream.gateway.openapi import openapi  # noqa: E402
from clickscore.stream.settings import SETTINGS  # noqa: E402
from clickscore.stream.worker.latency_histogram import LatencyHistogram  # noqa: E402
from clickscore.stream.worker.prometheus_metrics import Metrics  # noqa: E402
from docs.contracts import asyncapi_text, schema_files  # noqa: E402

PACKAGES = ("schemas", "model", "export", "stream", "backtest", "retraining")
PARTLY_GENERATED = ("docs/architecture.md", "docs/clients.md", "docs/gateway.md", "docs/operations.md")
CLIENT_PROGRAMS = {
    "java": "docs/clients/java/src/main/java/ShopClient.java",
    "javascript": "docs/clients/node/shop_client.js",
    "go": "docs/clients/go/main.go",
}
"""Programs that `docs/clients.md` shows, by language."""


def documents() -> dict[Path, str]:
    """Return the expected text of each file that is generated, as a whole or in part."""
    texts = {ROOT / "docs" / "schemas" / name: text for name, text in schema_files().items()}
    texts[ROOT / "docs" / "asyncapi.yaml"] = asyncapi_text()
    texts[ROOT / "docs" / "openapi.json"] = orjson.dumps(openapi(), option=orjson.OPT_INDENT_2).decode() + "\n"
    parts = {
        "layers": layers_picture(),
        "map": file_map(),
        "topics": topics_table(),
        "settings": settings_table(),
        "metrics": metrics_table(Metrics()),
        "gateway-metrics": metrics_table(GatewayMetrics()),
        **{f"client-{language}": source_block(language, path) for language, path in CLIENT_PROGRAMS.items()},
    }
    for name in PARTLY_GENERATED:
        texts[ROOT / name] = with_parts((ROOT / name).read_text(encoding="utf-8"), parts)
    return texts


def with_parts(text: str, parts: dict[str, str]) -> str:
    """Return a document with its generated parts replaced.

    Raises:
        ValueError: A mark names an unknown part, or has no end.
    """
    for name in re.findall(r"<!-- generated: (\S+) -->", text):
        if name not in parts or f"<!-- end: {name} -->" not in text:
            message = f"no part {name!r}, or its mark is not ended"
            raise ValueError(message)
        start, end = f"<!-- generated: {name} -->\n", f"<!-- end: {name} -->"
        head, _, tail = text.partition(start)
        text = head + start + parts[name] + end + tail.partition(end)[2]
    return text


def layers_picture() -> str:
    """Return the layers contracts of `pyproject.toml` as text: a line may import only the lines below it."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    blocks: list[str] = []
    for contract in config["contracts"]:
        if contract["type"] == "layers":
            lines = [layer.replace("clickscore.", "") for layer in contract["layers"]]
            blocks.append("\n".join([f"{contract['name']}:", *(f"    {line}" for line in lines)]))
    return "```text\n" + "\n\n".join(blocks) + "\n```\n"


def file_map() -> str:
    """Return the files of the packages, each with the first sentence of its docstring, room by room."""
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


def metrics_table(metrics: Metrics | GatewayMetrics) -> str:
    """Return every metric by its name in Prometheus, with kind, labels and meaning."""
    rows: list[tuple[str, ...]] = []
    for metric in vars(metrics).values():
        if not isinstance(metric, MetricWrapperBase | LatencyHistogram):
            continue
        family = next(iter(metric.describe()))
        name = family.name + ("_total" if family.type == "counter" else "")
        # No public attribute of the library's own metrics has the labels.
        labels = ", ".join(f"`{label}`" for label in getattr(metric, "_labelnames", ()))
        rows.append((f"`{name}`", family.type, labels, family.documentation))
    return _table(("metric", "kind", "labels", "what"), rows)


def source_block(language: str, path: str) -> str:
    """Return a source file as a code block of Markdown.

    Args:
        language: Language after the fence.
        path: File, from the root of the repository.
    """
    return f"```{language}\n{(ROOT / path).read_text(encoding='utf-8')}```\n"


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
