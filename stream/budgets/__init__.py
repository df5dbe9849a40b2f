"""Budgets: what campaigns may spend, in which partition, and how fast."""
