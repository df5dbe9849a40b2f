"""Benchmarks: how fast, how late and how large Clickscore is, beside what one would use instead for the same work."""
