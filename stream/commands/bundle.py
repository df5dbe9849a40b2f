"""`clickscore bundle`: check a bundle before a worker loads it, and keep bundles in a store."""

import sys
from datetime import UTC, datetime
from pathlib import Path

import click

from clickscore.model.bundle_folder import BundleFolder
from clickscore.model.finite_range import FiniteRange
from clickscore.model.json_output import JsonOutput, json_options
from clickscore.schemas.manifest import Manifest
from clickscore.stream.commands.options import with_settings
from clickscore.stream.errors import SettingsError
from clickscore.stream.policy.policy_file import load_policy
from clickscore.stream.scoring.bundle import load_bundle
from clickscore.stream.scoring.bundle_store import BundleStore
from clickscore.stream.scoring.isolated_check import check_bundle_isolated
from clickscore.stream.settings import Settings
from clickscore.stream.simulator.bundle_speed import measure_bundle
from clickscore.stream.terminal_text import safe_text


@click.group()
def bundle() -> None:
    """Check a bundle (the folder of one shipped model), and keep bundles in a store.

    \b
    Example:
      clickscore bundle check bundle
      clickscore bundle push bundle --bundle-store /srv/bundles
      clickscore bundle list --bundle-store /srv/bundles
    """  # noqa: D301


@bundle.command()
@click.argument("folder", type=BundleFolder())
@json_options
def check(*, folder: Path, json_output: JsonOutput) -> None:
    """Check the bundle in FOLDER; print its problems and exit with code 1 if there are any.

    The name demo stands for the packaged bundle.

    \b
    Example:
      clickscore bundle check demo
      clickscore bundle check bundle --json
    """  # noqa: D301 (\\b tells click to keep the line breaks)
    problems = check_bundle_isolated(folder)
    for problem in problems:
        json_output.echo(f"problem: {safe_text(problem)}")
    manifest = None if problems else load_bundle(folder).manifest
    json_output.write({"problems": problems, "manifest": manifest})
    if manifest is None:
        sys.exit(1)
    _describe(json_output, manifest, f"good: {manifest.version}")


@bundle.command()
@click.argument("folder", type=BundleFolder())
@click.option(
    "--seconds",
    type=FiniteRange(0.01),
    default=3.0,
    show_default=True,
    help="Time for each batch size.",
)
@with_settings("policy", "score_threads", "score_batch", broker=False)
@json_options
def bench(folder: Path, seconds: float, *, settings: Settings, json_output: JsonOutput) -> None:
    """Measure how fast this machine decides with the bundle in FOLDER, without Kafka.

    The events are views of the bundle's own items. The last line says what one worker can do at most:
    the broker and the network take their part. docs/capacity.md leads from there to machines.

    \b
    Example:
      clickscore bundle bench demo
      clickscore bundle bench bundle --seconds 10 --json
    """  # noqa: D301
    speed = measure_bundle(folder, settings, seconds, load_policy(settings.policy.policy))
    json_output.write(speed)
    json_output.echo(
        f"{speed.bundle}: {speed.items:,} items, loaded in {speed.load_s:.2f} s, {speed.memory_mb:,.0f} MB"
    )
    json_output.echo("events of a batch   p50 ms   p99 ms   events/s   CPU us an event")
    for batch in speed.batches:
        json_output.echo(
            f"{batch.batch:17}  {batch.p50_ms:7.2f}  {batch.p99_ms:7.2f}  "
            f"{batch.events_per_s:9,.0f}  {batch.cpu_us:16,.0f}"
        )
    json_output.echo(f"at most {max(batch.events_per_s for batch in speed.batches):,.0f} events/s for one worker")


@bundle.command()
@click.argument("folder", type=BundleFolder())
@with_settings("bundle_store", broker=False)
def push(folder: Path, *, settings: Settings) -> None:
    """Check the bundle in FOLDER and copy it into the bundle store.

    The store keeps each bundle under its content hash. A stored bundle never changes, and a second push of the same
    bundle does nothing.

    \b
    Example:
      clickscore bundle push bundle --bundle-store /srv/bundles
      CLICKSCORE_BUNDLE_STORE=s3://shop/bundles clickscore bundle push demo
    """  # noqa: D301
    manifest = open_store(settings).push(folder)
    click.echo(f"{manifest.version} is in the bundle store")


@bundle.command("list")
@with_settings("bundle_store", broker=False)
@json_options
def list_bundles(*, settings: Settings, json_output: JsonOutput) -> None:
    """List the bundles of the bundle store, the newest push first.

    \b
    Example:
      clickscore bundle list --bundle-store /srv/bundles
    """  # noqa: D301
    stored = open_store(settings).list_bundles()
    json_output.write([{"version": bundle.manifest.version, "pushed_at": bundle.pushed_at} for bundle in stored])
    for manifest, pushed_at in stored:
        time = datetime.fromtimestamp(pushed_at, UTC).strftime("%Y-%m-%d %H:%M:%S") if pushed_at else "at unknown time"
        line = f"{manifest.version}  pushed {time}  {manifest.items:,} items  {manifest.framework}"
        json_output.echo(safe_text(line))
    if not stored:
        click.echo("The bundle store is empty. `clickscore bundle push FOLDER` adds a bundle", err=True)


@bundle.command()
@click.argument("version")
@with_settings("bundle_store", broker=False)
@json_options
def show(version: str, *, settings: Settings, json_output: JsonOutput) -> None:
    """Describe the bundle VERSION of the bundle store: at least 6 digits of its content hash.

    \b
    Example:
      clickscore bundle show 3f9ac2 --bundle-store /srv/bundles
    """  # noqa: D301
    manifest = open_store(settings).find(version).manifest
    json_output.write(manifest)
    _describe(json_output, manifest, manifest.version)


@bundle.command()
@click.argument("version")
@click.option(
    "--out", "folder", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder of the copies."
)
@with_settings("bundle_store", broker=False)
def fetch(version: str, folder: Path, *, settings: Settings) -> None:
    """Copy the bundle VERSION out of the bundle store, check the copy, and print its folder.

    \b
    Example:
      clickscore worker --bundle $(clickscore bundle fetch 3f9ac2 --bundle-store /srv/bundles --out /var/lib/bundles)
    """  # noqa: D301
    click.echo(open_store(settings).fetch(version, folder))


def open_store(settings: Settings) -> BundleStore:
    """Return the bundle store of the settings."""
    if not settings.scoring.bundle_store:
        message = "no bundle store is set. Name its folder or URL with --bundle-store or CLICKSCORE_BUNDLE_STORE"
        raise SettingsError(message)
    return BundleStore(settings.scoring.bundle_store)


def _describe(output: JsonOutput, manifest: Manifest, title: str) -> None:
    """Print a manifest in sentences.

    Args:
        output: Destinations of the results; words go where JSON does not.
        manifest: Manifest to describe.
        title: First words.
    """
    output.echo(
        safe_text(f"{title}, made with {manifest.framework}, learned from {manifest.training_data or 'unknown data'}")
    )
    output.echo(f"{manifest.items:,} items, sessions of up to {manifest.max_length}, {manifest.candidates} candidates")
    if manifest.absent_heads:
        heads = safe_text(" and no ".join(manifest.absent_heads))
        output.echo(f"the model has no {heads}: decisions state null there")
    if manifest.unfinished:
        output.echo(f"beware: exported from a training that had not ended ({safe_text(manifest.unfinished)})")
    if manifest.fidelity:
        output.echo(
            f"{safe_text(manifest.precision)}: recall@20 against the fp32 graph is {manifest.fidelity.overlap:.2%}"
        )
    if manifest.trainings > 1:
        output.echo(f"scores: the mean of {manifest.trainings} trainings; probabilities and metrics: of the first one")
    if index := manifest.session_neighbours:
        output.echo(f"session neighbours: {index.sessions} sessions, factor {index.factor:g}")
    for name, value in sorted(manifest.metrics.items()):
        if name.startswith("purchase_") and not manifest.metrics.get("purchase_rate", 1):
            continue  # measured on sessions without a purchase, these figures say nothing
        output.echo(f"  {safe_text(name)} {value:.4f}")
