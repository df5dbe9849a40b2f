"""How we ship: a trained model as a bundle that a worker accepts."""

import os

# ONNX Runtime reports its use to its maker unless told not to, before it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
