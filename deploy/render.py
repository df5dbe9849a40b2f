"""Render the Helm chart with its default values into plain manifests; `python deploy/render.py` writes the file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import helm_python

ROOT = Path(__file__).resolve().parent.parent
CHART = ROOT / "deploy" / "chart"
MANIFESTS = ROOT / "deploy" / "kubernetes" / "clickscore.yaml"
HEAD = """\
# Rendered from deploy/chart with its default values: `python deploy/render.py` writes it anew, and a test compares it.
# Change at least the image and CLICKSCORE_BOOTSTRAP_SERVERS. docs/kubernetes.md says what else is needed.
"""


def render(values: Mapping[str, Any]) -> str:
    """Return the objects of the chart as YAML documents, for a release named `clickscore`."""
    with helm_python.Chart.load(CHART.as_posix()) as chart:
        files = chart.render(dict(values), name="clickscore", namespace="default")
    texts = [text.strip() for name, text in sorted(files.items()) if name.endswith(".yaml") and text.strip()]
    return "\n---\n".join(texts) + "\n"


if __name__ == "__main__":
    MANIFESTS.write_text(HEAD + render({}), encoding="utf-8")
