"""A bundle's scores for requests, by ONNX Runtime."""
