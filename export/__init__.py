"""How we ship: a trained model as a bundle that a worker accepts."""

import os

# ONNX Runtime sends usage reports to Microsoft unless this variable is set before the import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
