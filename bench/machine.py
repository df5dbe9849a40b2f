"""Machine: describe the hardware and the versions of a measurement."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

import psutil

from clickscore.stream.kafka.embedded import KAFKA_VERSION

PACKAGES = ("onnxruntime", "numpy", "faust-streaming", "aiokafka", "uvloop", "quixstreams", "confluent-kafka")
ROOT = Path(__file__).parent.parent


def machine() -> dict[str, str]:
    """Return facts about the machine by name."""
    memory = psutil.virtual_memory().total / 2**30
    return {
        "processor": f"{_processor()}, {os.cpu_count()} cores, {memory:.0f} GB",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "kafka": f"Apache Kafka {KAFKA_VERSION}, one node, on the same machine",
        "packages": ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES),
        "commit": _commit(),
        "load before": f"{os.getloadavg()[0]:.1f}",
    }


def _processor() -> str:
    names = Path("/proc/cpuinfo")
    if names.exists():
        for line in names.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _commit() -> str:
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=8"]
    try:
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return output.strip()
