"""Benchmarks: measure speed, latency and memory of Clickscore beside other tools at the same work."""
