"""How we learn: features, the Transformer, its training and its evaluation."""

import os

# ONNX Runtime sends usage reports to Microsoft unless this variable is set before the import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
