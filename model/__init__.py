"""How we learn: features, the Transformer, its training and its evaluation."""

import os

# ONNX Runtime reports its use to its maker unless told not to, before it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
