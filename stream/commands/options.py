"""Options: settings as flags of a command."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click

from clickscore.stream.settings import FIELDS, TYPES, load

Command = Callable[..., Any]


def with_settings(*names: str) -> Callable[[Command], Command]:
    """Return a decorator that gives a command `--config` and a flag for each named setting.

    The command receives all settings as `settings`. It always has a flag for the address of the broker. A setting
    without a flag comes from the environment or the settings file.
    """

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def run(*args: Any, config: Path | None, **kwargs: Any) -> Any:  # noqa: ANN401 (click passes parsed values)
            flags = {name: kwargs.pop(name) for name in flag_names}
            settings, _ = load(flags, file=config)
            return command(*args, settings=settings, **kwargs)

        flag_names = ("bootstrap_servers", *(name for name in names if name != "bootstrap_servers"))
        decorated: Command = run
        for name in reversed(flag_names):
            decorated = _flag(name)(decorated)
        path = click.Path(dir_okay=False, path_type=Path)
        return click.option("--config", type=path, help="Settings file (TOML). Default: clickscore.toml.")(decorated)

    return decorate


def _flag(name: str) -> Callable[[Command], Command]:
    field = FIELDS[name]
    kind: Any = click.Choice(get_args(TYPES[name])) if get_origin(TYPES[name]) is Literal else TYPES[name]
    text = f"{field.metadata['what']} ({field.metadata['unit']}). Default: {field.default!r}."
    return click.option(f"--{name.replace('_', '-')}", name, type=kind, default=None, help=text)
