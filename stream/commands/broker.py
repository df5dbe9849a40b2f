"""`clickscore broker`: a Kafka of your own, on this machine."""

import sys
from pathlib import Path

import click
from rich.console import Console

from clickscore.model.json_output import JsonOutput, json_options


# The embedded broker is imported when a command runs: it needs the `broker` extra, and `clickscore --help` does not.
def _default_data() -> Path:
    from clickscore.stream.kafka.embedded import default_data  # noqa: PLC0415

    return default_data()


_data = click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    default=_default_data,
    show_default="~/.local/state/clickscore/kafka",
    help="Folder of the broker; the data is kept.",
)


@click.group()
def broker() -> None:
    """Start and stop a real Apache Kafka of a single node on this machine.

    \b
    Example:
      clickscore broker start
      clickscore broker status
      clickscore broker stop
    """  # noqa: D301


@broker.command()
@_data
@click.option("--port", type=click.IntRange(0, 65535), default=9092, show_default=True, help="0 takes any free port.")
def start(data: Path, port: int) -> None:
    """Start the broker in the background; the broker outlives this shell. The first start downloads Kafka (56 MB).

    \b
    Example:
      clickscore broker start --data ./kafka --port 9092
    """  # noqa: D301
    from clickscore.stream.kafka.embedded import KAFKA_VERSION, EmbeddedBroker, log_file  # noqa: PLC0415

    running = EmbeddedBroker.find(data)
    if running:
        click.echo(f"Already running: {running.bootstrap_servers} (pid {running.pid}, data in {running.data})")
        return
    console = Console(stderr=True, markup=False)
    with console.status("") as status:

        def report(step: str) -> None:
            status.update(f"{step} ...")
            if not console.is_terminal:
                console.print(f"{step} ...", highlight=False)

        started = EmbeddedBroker.start(data, port, report)
    click.echo(f"Kafka {KAFKA_VERSION} answers at {started.bootstrap_servers} (pid {started.pid})")
    click.echo(f"Data in {started.data}, log in {log_file(started.data)}")


@broker.command()
@_data
def stop(data: Path) -> None:
    """Stop the broker of a folder; the data stays.

    \b
    Example:
      clickscore broker stop
    """  # noqa: D301
    from clickscore.stream.kafka.embedded import EmbeddedBroker  # noqa: PLC0415

    running = EmbeddedBroker.find(data)
    if not running:
        click.echo(f"No broker runs on {data}")
        return
    running.stop()
    click.echo(f"Stopped {running.bootstrap_servers} (pid {running.pid}); the data stays in {running.data}")


@broker.command()
@_data
@json_options
def status(*, data: Path, json_output: JsonOutput) -> None:
    """Show whether the broker runs; the exit code is 1 if no broker runs.

    \b
    Example:
      clickscore broker status
    """  # noqa: D301
    from clickscore.stream.kafka.embedded import EmbeddedBroker  # noqa: PLC0415

    running = EmbeddedBroker.find(data)
    address = {"bootstrap_servers": running.bootstrap_servers, "pid": running.pid} if running else {}
    json_output.write({"running": running is not None, "data": str(data), **address})
    if not running:
        json_output.echo(f"No broker runs on {data}")
        sys.exit(1)
    json_output.echo(f"Kafka runs at {running.bootstrap_servers} (pid {running.pid}, data in {running.data})")
