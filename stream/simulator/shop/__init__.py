"""Synthetic shop: shoppers whose behaviour has known probabilities, from a seed and without a clock."""
