"""The command line: `clickscore`, also `python -m clickscore.stream`."""

import difflib
import errno
import importlib
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points
from typing import NoReturn

import click

from clickscore.schemas.errors import ClickscoreError
from clickscore.stream.terminal_text import safe_text

# Module of each command, under `stream.commands`. It is loaded on use: `--help` needs neither Faust nor ONNX Runtime.
COMMANDS = {
    "broker": "broker",
    "topics": "topics",
    "produce": "produce",
    "events": "events",
    "relay": "relay",
    "worker": "worker",
    "gateway": "gateway",
    "replay": "replay",
    "explain": "explain",
    "outcomes": "outcomes",
    "sessions": "sessions",
    "items": "items",
    "tail": "tail",
    "consent": "consent",
    "erase": "erase",
    "identify": "identify",
    "bundle": "bundle",
    "policy": "policy",
    "ads": "ads",
    "rollout": "rollout",
    "demo": "demo",
    "simulate": "simulate",
    "settings": "settings",
}

FILE_ERRORS = frozenset(
    {
        *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM),
        *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP),
    }
)
"""Causes of an `OSError` in files and folders of the user: a full disk, a missing folder, a missing right."""

ALIASES = {"adopt": "import-onnx"}
"""Former names of commands. Former names still work, but are not listed."""


class Commands(click.Group):
    """Commands of this package, and of the `train` extra by entry points of the group `clickscore.commands`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return all names, this package's commands first."""
        del ctx
        extra = (entry.name for entry in entry_points(group="clickscore.commands"))
        return [*COMMANDS, *sorted(name for name in extra if name not in ALIASES)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load a command by name; None for an unknown name."""
        del ctx
        cmd_name = ALIASES.get(cmd_name, cmd_name)
        if cmd_name in COMMANDS:
            return getattr(importlib.import_module(f"clickscore.stream.commands.{COMMANDS[cmd_name]}"), cmd_name)
        for entry in entry_points(group="clickscore.commands", name=cmd_name):
            try:
                return entry.load()
            except ModuleNotFoundError as exc:
                message = f"`clickscore {cmd_name}` needs the train extra ({exc.name} is missing): make setup-train"
                raise click.ClickException(message) from exc
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command of the arguments; for an unknown name, suggest the closest command."""
        closest = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1)
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as exc:
            if closest:
                exc.message += f" Did you mean `{closest[0]}`?"
            raise


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="clickscore")
def cli() -> None:
    """Score a shop's clickstream as it flows: events in, recommendations and ads out.

    \b
    Start here:
      clickscore demo                       a real Kafka, a synthetic shop, a live view
      clickscore broker start               a Kafka of your own, on this machine
      clickscore topics create
      clickscore worker --bundle DIR
    """  # noqa: D301 (\\b is click's mark for lines that stay as they are)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line, and exit. An error that is raised on purpose is a line without a traceback.

    Args:
        arguments: Command and options; by default the process's arguments.
    """
    try:
        sys.exit(cli.main(arguments, "clickscore", standalone_mode=False))
    except ClickscoreError as exc:
        _fail(str(exc), 1)
    except click.exceptions.NoArgsIsHelpError as exc:
        exc.show()
        sys.exit(exc.exit_code)
    except click.UsageError as exc:
        command = exc.ctx.command_path if exc.ctx else "clickscore"
        _fail(f"{_restyle(exc.format_message())} (see `{command} --help`)", exc.exit_code)
    except click.ClickException as exc:
        _fail(exc.format_message(), exc.exit_code)
    except click.Abort:
        _fail("interrupted", 1)
    except OSError as exc:
        if exc.errno not in FILE_ERRORS:
            raise
        _fail(f"{exc.filename}: {exc.strerror}" if exc.filename else f"a file cannot be written: {exc.strerror}", 1)


def _restyle(message: str) -> str:
    """Return a message of click in the style of all errors: a small first letter, and no full stop at the end."""
    starts_with_word = message[:1].isupper() and message[1:2].islower()
    return (message[0].lower() + message[1:] if starts_with_word else message).rstrip(".")


def _fail(message: str, exit_code: int) -> NoReturn:
    """Print an error in the style of all commands, and exit."""
    click.echo(safe_text(f"clickscore: {message}", lines=True), err=True)
    sys.exit(exit_code)


if __name__ == "__main__":
    main()
