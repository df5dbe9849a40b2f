"""Simulator: a synthetic shop, its traffic on Kafka, and the demo."""
