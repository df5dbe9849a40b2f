"""Options: settings as flags of a command."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import click

from clickscore.stream.event_files.event_reader import EventFile
from clickscore.stream.event_files.formats.mapping_files import SHIPPED_MAPPINGS
from clickscore.stream.event_files.formats.registry import Format
from clickscore.stream.event_files.time_order import Order
from clickscore.stream.settings import SETTINGS, Setting, load
from clickscore.stream.shipped_files import TOML_SUFFIX

Command = Callable[..., Any]


class FormatName(click.ParamType):
    """Name of a format: a format of the program, a shipped mapping, or the path of a mapping."""

    name = "format"

    def __init__(self, names: Sequence[str] = (*get_args(Format), *SHIPPED_MAPPINGS)) -> None:
        """Take the allowed names, besides the path of a mapping."""
        self._names = names

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name of a format, or end the command with the allowed names.

        Args:
            value: Text of the option.
            param: The option.
            ctx: Context of the command.
        """
        if value not in self._names and not value.endswith(TOML_SUFFIX):
            names = ", ".join(self._names)
            self.fail(f"{value!r} is not one of {names}, nor the path of a {TOML_SUFFIX} file", param, ctx)
        return value


format_option = click.option(
    "--format",
    "file_format",
    type=FormatName(),
    metavar="FORMAT",
    default="auto",
    show_default=True,
    help=f"Format of the file: {', '.join(get_args(Format))}, a mapping that comes with the package "
    "(`clickscore events formats` lists all), or the path of a mapping of your own (.toml).",
)
"""Option of a command that reads an event file; the command receives `file_format`."""

order_option = click.option(
    "--order",
    type=click.Choice(get_args(Order)),
    default="time",
    show_default=True,
    help="time: sort a file that has late events, so that none is late. file: read any file in its own order.",
)
"""Option of a command that needs events in order of time; the command receives `order`."""


def print_ignored(file: EventFile) -> None:
    """Print how many lines of a file gave no event because the mapping ignores their type, if there are any."""
    if file.ignored:
        click.echo(f"{file.ignored:,} lines have a type that the mapping {file.format} ignores")


def with_settings(*names: str, broker: bool = True) -> Callable[[Command], Command]:
    """Return a decorator that gives a command `--config` and a flag for each named setting.

    The command receives all settings as `settings`. A setting without a flag comes from the environment or the settings
    file.

    Args:
        names: Names of the settings.
        broker: Whether the command also has a flag for the address of the broker.
    """

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def run(*args: Any, config: Path | None, **kwargs: Any) -> Any:  # noqa: ANN401 (click passes parsed values)
            flags = {name: kwargs.pop(name) for name in (*flag_names, *former_names)}
            settings, _ = load(flags, file=config)
            return command(*args, settings=settings, **kwargs)

        first_names = ("bootstrap_servers",) if broker else ()
        flag_names = (*first_names, *(name for name in names if name not in first_names))
        former_names = {former: SETTINGS[name] for name in flag_names if (former := SETTINGS[name].former_name)}
        decorated: Command = run
        for former_name, setting in former_names.items():
            decorated = _former_flag(setting, former_name)(decorated)
        for name in reversed(flag_names):
            decorated = _flag(name)(decorated)
        path = click.Path(dir_okay=False, path_type=Path)
        return click.option("--config", type=path, help="Settings file (TOML). Default: clickscore.toml.")(decorated)

    return decorate


def _flag(name: str) -> Callable[[Command], Command]:
    setting = SETTINGS[name]
    text = f"{setting.sentence} ({setting.unit}). Default: {setting.default!r}."
    return click.option(f"--{name.replace('_', '-')}", name, type=_kind(setting), default=None, help=text)


def _former_flag(setting: Setting, former_name: str) -> Callable[[Command], Command]:
    """Return the flag of a setting's earlier name, which still works and is not shown."""
    return click.option(
        f"--{former_name.replace('_', '-')}", former_name, type=_kind(setting), default=None, hidden=True
    )


def _kind(setting: Setting) -> Any:  # noqa: ANN401 (click takes a type of its own, or Python's)
    return click.Choice(setting.choices) if setting.choices else setting.kind
