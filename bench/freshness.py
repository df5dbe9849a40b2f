"""`python -m bench.freshness SESSIONS --folder FOLDER`: what newer data is worth, as P@20 over the age of a bundle.

SESSIONS is a file of sessions in order of time. A model trains on the first part. The rest is cut into windows, and on
each window three bundles are judged: the bundle as it is; the bundle with its neighbours counted again on everything
before the window; and the bundle fine-tuned on it. Age is the number of sessions since the newest that was learned, as
nothing says how much time passes between two lines of a file of item ids. FOLDER keeps the trained model.
"""

import gzip
import json
from pathlib import Path

import click
from rich.console import Console

from clickscore.model.config import read_preset
from clickscore.model.dataset import load_dataset, load_fine_tuning_data
from clickscore.model.evaluation.bundle_comparison import MeasuredDifference, compare_bundles
from clickscore.model.session_files import read_lines
from clickscore.model.threads import wait_passively

HIT_RATE = "hit_rate@20"


@click.command()
@click.argument("sessions", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--folder", required=True, type=click.Path(file_okay=False, path_type=Path), help="A new folder.")
@click.option("--preset", default="small", show_default=True)
@click.option("--newest", type=click.IntRange(1_000), default=80_000, show_default=True, help="Sessions, the newest.")
@click.option(
    "--share", type=click.FloatRange(0.1, 0.9), default=0.6, show_default=True, help="Share to train on first."
)
@click.option("--windows", type=click.IntRange(1), default=5, show_default=True)
@click.option(
    "--judged", type=click.IntRange(10), default=2_000, show_default=True, help="Sessions judged in a window."
)
def main(*, sessions: Path, folder: Path, preset: str, newest: int, share: float, windows: int, judged: int) -> None:
    """Print a line for each window, as JSON: the age, P@20 of each bundle, and the difference from the old bundle."""
    wait_passively()
    import torch  # noqa: PLC0415 (OpenMP reads its settings at the import)

    torch.set_num_threads(1)
    from clickscore.export.export_bundle import export_bundle  # noqa: PLC0415 (as above)
    from clickscore.model.checkpoint import load_checkpoint, load_pairs  # noqa: PLC0415
    from clickscore.model.train import fine_tune, refresh_neighbours, train  # noqa: PLC0415

    console, config = Console(stderr=True, markup=False), read_preset(preset)
    lines = [line for line in read_lines(sessions) if line.strip()][-newest:]
    suffix = ".tsv.gz" if sessions.name.removesuffix(".gz").endswith(".tsv") else ".jsonl.gz"
    first, width = round(share * len(lines)), round((1 - share) * len(lines) / windows)
    folder.mkdir(parents=True, exist_ok=True)

    def write(name: str, start: int, end: int) -> Path:
        path = folder / f"{name}{suffix}"
        with gzip.open(path, "wb", compresslevel=1) as file:
            file.writelines(lines[start:end])
        return path

    def export(name: str) -> Path:
        bundle = folder / f"{name}-bundle"
        if not bundle.is_dir():
            export_bundle(folder / name, bundle)
        return bundle

    train(load_dataset([write("first", 0, first)], config), config, folder / "first", console)
    trained, pairs = load_checkpoint(folder / "first"), load_pairs(folder / "first")
    for window in range(windows):
        start = first + window * width
        test = write("test", start, start + width)
        names = {"neighbours": "first", "fine-tuned": "first"}
        if window:
            newer = load_fine_tuning_data([write(f"newer-{window}", first, start)], config, trained.vocabulary)
            names = {"neighbours": f"fresh-{window}", "fine-tuned": f"tuned-{window}"}
            refresh_neighbours(trained, pairs, newer, folder / names["neighbours"], lineage="first")
            fine_tune(trained, pairs, newer, folder / names["fine-tuned"], lineage="first", console=console)
        compared = {
            name: compare_bundles(export("first"), export(checkpoint), [test], judged).measures[HIT_RATE]
            for name, checkpoint in names.items()
        }
        old = {"as it is": round(100 * compared["neighbours"].champion, 2)}
        age = {"sessions from": start - first, "to": start - first + width}
        click.echo(json.dumps(age | old | {name: _percent(measured) for name, measured in compared.items()}))


def _percent(measured: MeasuredDifference) -> list[float]:
    """Return P@20, and the difference from the old bundle with the ends of its interval, in percent."""
    difference = measured.difference
    values = (measured.challenger, difference.value, difference.low, difference.high)
    return [round(100 * value, 2) for value in values]


if __name__ == "__main__":
    main()
