"""Fixtures of the exporter's tests."""

from tests.model import conftest

one_thread = conftest.one_thread
