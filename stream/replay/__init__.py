"""Recorded events through the same pipeline: sources, processes, checkpoints, comparison with the live log."""
