"""A synthetic shop whose truth is known: seeded, and without a clock."""
