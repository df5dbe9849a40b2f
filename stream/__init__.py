"""How we serve: the worker, the replay, the tools around a topic."""

import os

# ONNX Runtime reports its use to its maker unless told not to, before it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
