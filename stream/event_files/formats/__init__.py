"""Formats of event files: a module for each format."""
