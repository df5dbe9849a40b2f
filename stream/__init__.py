"""How we serve: the worker, the replay, the tools around a topic."""

import os

# ONNX Runtime sends usage reports to Microsoft unless this variable is set before the import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
