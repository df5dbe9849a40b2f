"""Options: settings as flags of a command, and the settings that result."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click

from clickscore.stream.settings import FIELDS, TYPES, load

Command = Callable[..., Any]


def with_settings(*names: str) -> Callable[[Command], Command]:
    """Give a command `--config` and a flag for each named setting; it receives them all as `settings`.

    The broker's address is always among the flags. What has no flag comes from the environment or the file.
    """

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def run(*args: Any, config: Path | None, **kwargs: Any) -> Any:  # noqa: ANN401 (click passes what it parsed)
            flags = {name: kwargs.pop(name) for name in chosen}
            settings, _ = load(flags, file=config)
            return command(*args, settings=settings, **kwargs)

        chosen = ("bootstrap_servers", *(name for name in names if name != "bootstrap_servers"))
        wrapped: Command = run
        for name in reversed(chosen):
            wrapped = _flag(name)(wrapped)
        path = click.Path(dir_okay=False, path_type=Path)
        return click.option("--config", type=path, help="Settings file (TOML). Default: clickscore.toml.")(wrapped)

    return decorate


def _flag(name: str) -> Callable[[Command], Command]:
    field = FIELDS[name]
    kind: Any = click.Choice(get_args(TYPES[name])) if get_origin(TYPES[name]) is Literal else TYPES[name]
    text = f"{field.metadata['what']} ({field.metadata['unit']}). Default: {field.default!r}."
    return click.option(f"--{name.replace('_', '-')}", name, type=kind, default=None, help=text)
