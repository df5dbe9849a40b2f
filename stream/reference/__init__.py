"""Catalogue and campaigns: every worker holds all of both."""
