"""`python -m bench.session_neighbours CHECKPOINT ...`: what session neighbours are worth, and what they cost.

CHECKPOINT is a trained model. The index holds the sessions of `--indexed`, which the model has learned from. The factor
is chosen on `--validation`, as `clickscore train` chooses it, or is `--factor`. Then the bundles with and without the
index are compared on `--test`, with intervals over sessions, and so is the CPU time of their graphs, in turns.
"""

import json
import shutil
import tempfile
import time
from pathlib import Path

import click
import msgspec
import numpy as np

from clickscore.model.evaluation.bundle_comparison import MEASURES, compare_bundles
from clickscore.model.examples import make_examples
from clickscore.model.onnx_runtime import open_graph, run_graph
from clickscore.model.session_files import read_sessions
from clickscore.model.training_batches import pad_prefixes
from clickscore.model.vocabulary import read_vocabulary
from clickscore.schemas.manifest import decode_manifest

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
BATCH, TURNS = 64, 7
"""Sessions of a call, as in a worker; turns of each graph, of which the fastest counts."""


@click.command()
@click.argument("checkpoint", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--indexed", multiple=True, required=True, type=FILE, help="Sessions to index, the oldest file first.")
@click.option("--validation", type=FILE, help="Later sessions, to choose the factor on.")
@click.option("--factor", type=click.FloatRange(0), help="Factor, in place of a choice.")
@click.option("--test", "tests", multiple=True, required=True, type=FILE, help="Sessions later than all others.")
@click.option("--judged", default=2_000, show_default=True, help="Sessions of the test, the newest, at most.")
def main(
    *,
    checkpoint: Path,
    indexed: tuple[Path, ...],
    validation: Path | None,
    factor: float | None,
    tests: tuple[Path, ...],
    judged: int,
) -> None:
    """Print the factor, each measure without and with the index, and the times, as JSON."""
    import torch  # noqa: PLC0415 (OpenMP reads its settings at the import)

    torch.set_num_threads(1)
    from clickscore.export.export_bundle import export_bundle  # noqa: PLC0415 (as above)
    from clickscore.model.checkpoint import load_checkpoint, save_sessions  # noqa: PLC0415
    from clickscore.model.neighbour_factor import choose_factor  # noqa: PLC0415
    from clickscore.model.session_neighbours import IndexedSessions, index_sessions  # noqa: PLC0415

    trained = load_checkpoint(checkpoint)
    max_length = trained.record.config.model.max_length

    def read(paths: list[Path]):
        sessions, _ = read_sessions(paths)
        return make_examples(sessions, trained.vocabulary.rows(sessions.item_ids), max_length)

    results: dict[str, object] = {}
    sessions = read(list(indexed))
    if factor is None:
        if validation is None:
            raise click.UsageError("name --validation or --factor")
        factor, gain = choose_factor(trained.model, trained.table(), sessions, read([validation]))
        results["gain on validation"] = round(gain, 5)
    results["factor"] = factor
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(checkpoint, folder / "checkpoint")
        save_sessions(folder / "checkpoint", IndexedSessions(index_sessions(sessions), factor))
        for part, with_index in (("without", False), ("with", True)):
            export_bundle(folder / "checkpoint", folder / part, session_neighbours=with_index)
        report = decode_manifest((folder / "with" / "manifest.json").read_bytes()).session_neighbours
        results["index"] = msgspec.to_builtins(report)
        comparison = compare_bundles(folder / "without", folder / "with", list(tests), judged)
        for measure in MEASURES[:2]:
            results[measure] = msgspec.to_builtins(comparison.measures[measure])
        results["us a session"] = measure_times(folder, list(tests))
    print(json.dumps(results, indent=2))


def measure_times(folder: Path, tests: list[Path]) -> dict[str, float]:
    """Return the CPU time of a session in batches of 64 prefixes, us, without and with the index.

    Args:
        folder: Folder of the bundles `without` and `with`.
        tests: Files of sessions.
    """
    sessions, _ = read_sessions(tests)
    rows = read_vocabulary(folder / "with" / "items.txt").rows(sessions.item_ids)
    examples = make_examples(sessions, rows, 20)
    events = np.random.default_rng(0).choice(len(examples.items), 16 * BATCH, replace=False)
    lengths = pad_prefixes(examples, events).lengths
    batches = [pad_prefixes(examples, part) for part in np.split(events[np.argsort(lengths, kind="stable")], 16)]
    graphs = {name: open_graph(folder / name / "model.onnx") for name in ("without", "with")}
    best = dict.fromkeys(graphs, float("inf"))
    for _ in range(TURNS):
        for name, graph in graphs.items():
            started_at = time.process_time()
            for batch in batches:
                run_graph(graph, batch)
            best[name] = min(best[name], time.process_time() - started_at)
    return {name: round(1e6 * seconds / len(events), 1) for name, seconds in best.items()}


if __name__ == "__main__":
    main()
