"""JSON output of commands: the options `--json` and `--json-file`, with the same meaning in all commands."""

import functools
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console

from clickscore.model.output_file import STANDARD_OUTPUT, OutputFile
from clickscore.model.own_source import refuse_own_source
from clickscore.schemas.errors import OutputFileError

Command = Callable[..., Any]


class JsonOutput(msgspec.Struct, frozen=True):
    """Destinations of a command's results as JSON."""

    to_stdout: bool = False
    """Whether standard output gets the JSON, and nothing else."""
    file: Path | None = None

    def console(self, width: int | None = None) -> Console:
        """Return the console for words; it prints nothing where standard output gets the JSON.

        Args:
            width: Columns of a line; by default, lines are not wrapped.
        """
        return Console(quiet=self.to_stdout, markup=False, highlight=False, soft_wrap=width is None, width=width)

    def echo(self, text: str) -> None:
        """Print a line of words, except where standard output gets the JSON."""
        if not self.to_stdout:
            click.echo(text)

    def write(self, results: Any) -> None:  # noqa: ANN401 (msgspec encodes any type)
        """Write results as indented JSON to all destinations.

        Raises:
            OutputFileError: The file cannot be written.
        """
        if not (self.to_stdout or self.file):
            return
        document = msgspec.json.format(msgspec.json.encode(results), indent=2) + b"\n"
        if self.to_stdout:
            click.echo(document, nl=False)
        if self.file:
            try:
                self.file.write_bytes(document)
            except OSError as exc:
                message = f"{self.file} cannot be written: {exc.strerror or exc}"
                raise OutputFileError(message) from exc


def json_options(command: Command) -> Command:
    """Add `--json` and `--json-file` to a command, which receives `json_output`."""

    @functools.wraps(command)
    def run(*args: Any, as_json: bool, json_file: Path | None, **kwargs: Any) -> Any:  # noqa: ANN401 (click passes parsed values)
        to_stdout = as_json or json_file == STANDARD_OUTPUT
        others = {**click.get_current_context().params, "json_file": None}.values()
        sources = itertools.chain.from_iterable(value if isinstance(value, tuple) else [value] for value in others)
        refuse_own_source(json_file, *sources, option="--json-file")
        output = JsonOutput(to_stdout, None if json_file == STANDARD_OUTPUT else json_file)
        return command(*args, json_output=output, **kwargs)

    decorated = click.option(
        "--json-file",
        type=OutputFile(dir_okay=False, allow_dash=True, resolve_path=True, path_type=Path),
        help="Write the results to this file, as JSON; - is standard output.",
    )(run)
    text = "Print the results as JSON to standard output, in place of words."
    return click.option("--json", "as_json", is_flag=True, help=text)(decorated)


class FormerJsonCommand(click.Command):
    """Command whose `--json` took a file in earlier versions: `--json FILE` still means `--json-file FILE`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments; a superfluous word behind `--json` is the file.

        Args:
            ctx: Context of the command.
            args: Words of the command line.
        """
        return super().parse_args(ctx, self._rename_former_option(ctx, args))

    def _rename_former_option(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Return the arguments with `--json FILE` and `--json=FILE` as `--json-file FILE`."""
        args = [word.replace("--json=", "--json-file=", 1) if word.startswith("--json=") else word for word in args]
        _, superfluous, _ = self.make_parser(ctx).parse_args(list(args))
        for number, (word, following) in enumerate(itertools.pairwise(args)):
            if superfluous and word == "--json" and not following.startswith("--"):
                return [*args[:number], "--json-file", *args[number + 1 :]]
        return args
