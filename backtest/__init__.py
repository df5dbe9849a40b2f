"""Backtests: compare bundles, policies and session gaps on recorded events with the actions of the users."""
