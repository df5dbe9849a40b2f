"""`python -m bench.freshness SESSIONS`: what newer data is worth, as P@20 over the age of a model.

SESSIONS is a file of sessions in order of time. A model trains on the first part. The rest is cut into windows, and on
each window three models are judged: the model as it is; the model with its neighbours counted again on everything
before the window; and the model fine-tuned on it. Age is the number of sessions since the newest that was learned, as
nothing says how much time passes between two lines of a file of item ids.
"""

import dataclasses
import gzip
import json
import tempfile
from pathlib import Path

import click
from rich.console import Console

from clickscore.model.checkpoint import Checkpoint, load_checkpoint, load_pairs
from clickscore.model.config import read_preset
from clickscore.model.dataset import load_dataset, load_fine_tuning_data
from clickscore.model.evaluation.comparison import estimate_share
from clickscore.model.predict import CUTOFF, evaluate_model
from clickscore.model.session_files import read_lines
from clickscore.model.threads import wait_passively

HIT_RATE = f"hit_rate@{CUTOFF}"


@click.command()
@click.argument("sessions", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--preset", default="small", show_default=True)
@click.option(
    "--share", type=click.FloatRange(0.1, 0.9), default=0.6, show_default=True, help="Share to train on first."
)
@click.option("--windows", type=click.IntRange(1), default=6, show_default=True)
@click.option(
    "--judged", type=click.IntRange(10), default=1_500, show_default=True, help="Sessions judged in a window."
)
@click.option("--json-file", type=click.Path(dir_okay=False, path_type=Path))
def main(*, sessions: Path, preset: str, share: float, windows: int, judged: int, json_file: Path | None) -> None:
    """Print a line for each window: the age, and P@20 of the three models, in percent."""
    wait_passively()
    import torch  # noqa: PLC0415 (OpenMP reads its settings at the import)

    torch.set_num_threads(1)
    from clickscore.model.train import fine_tune, refresh_neighbours, train  # noqa: PLC0415 (as above)

    console = Console(stderr=True)
    lines = [line for line in read_lines(sessions) if line.strip()]
    suffix = ".tsv.gz" if sessions.name.removesuffix(".gz").endswith(".tsv") else ".jsonl.gz"
    first, width = round(share * len(lines)), round((1 - share) * len(lines) / windows)
    results: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)

        def write(name: str, start: int, end: int) -> Path:
            path = place / f"{name}{suffix}"
            with gzip.open(path, "wb", compresslevel=1) as file:
                file.writelines(lines[start:end])
            return path

        config = read_preset(preset)
        train(load_dataset([write("first", 0, first)], config), config, place / "first", console)
        trained, pairs = load_checkpoint(place / "first"), load_pairs(place / "first")
        for window in range(windows):
            start = first + window * width
            test = write("test", start, start + width)
            models: dict[str, Checkpoint] = {"as it is": trained}
            if window:
                newer = load_fine_tuning_data([write("newer", first, start)], config, trained.vocabulary)
                fresh, tuned = place / f"fresh-{window}", place / f"tuned-{window}"
                refresh_neighbours(trained, pairs, newer, fresh, lineage="first")
                fine_tune(trained, pairs, newer, tuned, lineage="first", console=console)
                models |= {"neighbours": load_checkpoint(fresh), "fine-tuned": load_checkpoint(tuned)}
            result = {"age": float(start - first)} | {
                name: _judge(model, test, judged) for name, model in models.items()
            }
            results.append(result)
            margin = estimate_share(result["as it is"], judged).high - result["as it is"]
            cells = ", ".join(f"{name} {100 * value:.2f}" for name, value in result.items() if name != "age")
            click.echo(
                f"age {start - first:,} to {start - first + width:,} sessions: {cells} (about +-{100 * margin:.1f})"
            )
    if json_file:
        json_file.write_text(json.dumps(results, indent=2))


def _judge(model: Checkpoint, test: Path, judged: int) -> float:
    """Return the hit rate of a model on evenly spread sessions of a file."""
    config = dataclasses.replace(model.record.config, ranked_sessions=judged)
    sample = load_fine_tuning_data([test], config, model.vocabulary).sample
    return evaluate_model(model.model, model.table(), sample)[HIT_RATE]


if __name__ == "__main__":
    main()
