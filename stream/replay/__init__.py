"""Replay: put recorded events through the pipeline, in processes, with checkpoints, and verify the decisions."""
