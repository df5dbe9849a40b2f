"""A synthetic shop, its traffic, and the demo."""
