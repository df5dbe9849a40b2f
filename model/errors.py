"""Errors: what a person can put right, told by the command line in one line."""

import click


class TrainingError(click.ClickException):
    """Sessions, a checkpoint or a bundle are not what a command needs. The message says what to do."""
