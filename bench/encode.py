"""`python -m bench.encode EVENTS`: recommend items that the model never saw, by their texts, beside simple rules.

EVENTS is a REES46 file. For each seed a random tenth of the items is held out. The model trains on all events of 70 %
of the users without the held-out items. The sessions of the remaining users are the test. All results come from
bundles, one row at a time (`evaluate`).
"""

import csv
import gzip
import json
import random
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import click
import msgspec
import numpy as np

from bench.language_model import language_model
from bench.machine import ROOT
from clickscore.model.evaluation.prefix_evaluation import evaluate_prefixes
from clickscore.model.session_files import read_lines
from clickscore.model.split import split_sessions
from clickscore.schemas.catalogue import Item, encode
from clickscore.schemas.sessions import ClosedSession, decode_session, encode_session

HELD_OUT, TEST = 0.1, 0.3
K = 20
TURNS = {"view", "click", "cart", "favourite", "purchase"}


class Row(NamedTuple):
    """A session prefix and the next item."""

    prefix: tuple[str, ...]
    target: str


@click.command()
@click.argument("events", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--keep", type=click.Path(file_okay=False, path_type=Path), default=Path("build/encode"))
@click.option("--seeds", type=click.IntRange(min=1), default=4, show_default=True)
@click.option("--preset", default="small", show_default=True)
def main(events: Path, keep: Path, seeds: int, preset: str) -> None:
    """Print a line of JSON for each seed. Files in KEEP from an earlier run are reused."""
    keep.mkdir(parents=True, exist_ok=True)
    catalogue = items_of(events)
    sessions = keep / "sessions.jsonl.gz"
    if not sessions.is_file():
        run("clickscore.stream", "sessions", events, "--format", "rees46", "--out", sessions, "--close-open")
    split_sessions(sessions, keep / "training.jsonl.gz", keep / "test.jsonl.gz", "user", TEST)
    test = [decode_session(line) for line in read_lines(keep / "test.jsonl.gz")]
    for seed in range(seeds):
        held_out = set(random.Random(seed).sample(sorted(catalogue), round(HELD_OUT * len(catalogue))))
        folder = keep / f"seed-{seed}"
        counts = prepared(folder, keep / "training.jsonl.gz", catalogue, held_out)
        if not (folder / "wider" / "manifest.json").is_file():
            made(folder, language_model(keep), seed, preset)
        print(json.dumps({"seed": seed, **measured(folder, test, catalogue, held_out, counts)}), flush=True)


def items_of(events: Path) -> dict[str, Item]:
    """Return the catalogue as the events describe it: category, brand and last price. There are no titles."""
    with gzip.open(events, "rt") as file:
        return {
            row["product_id"]: Item(
                item_id=row["product_id"],
                category=row["category_code"] or row["category_id"],
                brand=row["brand"],
                price=float(row["price"]),
            )
            for row in csv.DictReader(file)
        }


def prepared(folder: Path, training: Path, catalogue: dict[str, Item], held_out: set[str]) -> Counter[str]:
    """Write the training sessions and the catalogue of known and held-out items.

    Args:
        folder: Folder of the seed.
        training: Sessions of the training users.
        catalogue: All items by id.
        held_out: Ids of the held-out items.

    Returns:
        Number of training events by item.
    """
    folder.mkdir(exist_ok=True)
    counts: Counter[str] = Counter()
    with gzip.open(folder / "train.jsonl.gz", "wb") as file:
        for line in read_lines(training):
            session = without(decode_session(line), held_out)
            counts.update(event.item_id for event in session.events)
            if session.events:
                file.write(encode_session(session) + b"\n")
    listed = [catalogue[item] for item in sorted(held_out | counts.keys())]
    (folder / "catalogue.jsonl").write_bytes(b"".join(encode(item) + b"\n" for item in listed))
    return counts


def without(session: ClosedSession, items: set[str]) -> ClosedSession:
    """Return a session without the events on some items."""
    events = tuple(event for event in session.events if event.item_id not in items)
    bought = any(event.action == "purchase" for event in events)
    return msgspec.structs.replace(session, events=events, length=len(events), purchased=bought)


def made(folder: Path, encoder: Path, seed: int, preset: str) -> None:
    """Train, export and encode.

    Args:
        folder: Folder of the seed.
        encoder: Folder of the language model.
        seed: Seed of the training.
        preset: Preset of the training.
    """
    for name in ("bundle", "wider"):
        shutil.rmtree(folder / name, ignore_errors=True)
    checkpoint, bundle = folder / "checkpoint", folder / "bundle"
    run(
        "clickscore.model.commands:train",
        folder / "train.jsonl.gz",
        "--out",
        checkpoint,
        "--seed",
        seed,
        "--preset",
        preset,
    )
    run("clickscore.export.commands:export", checkpoint, "--out", bundle, "--trainable")
    run(
        *("clickscore.export.commands:catalogue", "encode", bundle, "--items", folder / "catalogue.jsonl"),
        *("--encoder", encoder, "--out", folder / "wider"),
    )


def run(command: str, *arguments: object) -> None:
    """Run a command of the product."""
    module, _, name = command.partition(":")
    program = ["-c", f"from {module} import {name}; {name}()"] if name else ["-m", module]
    subprocess.run([sys.executable, *program, *map(str, arguments)], check=True, cwd=ROOT)


def rows_of(sessions: Iterable[ClosedSession], listed: set[str]) -> Iterator[Row]:
    """Yield all session prefixes with the listed item that follows."""
    for session in sessions:
        prefix: list[str] = []
        for event in session.events:
            if event.item_id in listed and event.action in TURNS:
                if prefix:
                    yield Row(tuple(prefix), event.item_id)
                prefix.append(event.item_id)


def measured(
    folder: Path, test: list[ClosedSession], catalogue: dict[str, Item], held_out: set[str], counts: Counter[str]
) -> dict[str, object]:
    """Return HR@20 in percent, for new targets and for all targets.

    Args:
        folder: Folder of the seed.
        test: Test sessions.
        catalogue: All items by id.
        held_out: Ids of the held-out items.
        counts: Number of training events by item.
    """
    listed = held_out | counts.keys()
    all_rows = list(rows_of(test, listed))
    results: dict[str, object] = {}
    for name, items in (("held out", held_out), ("known", listed - held_out)):
        for first in (True, False):
            rows = [row for row in all_rows if row.target in items and not (first and row.target in row.prefix)]
            results[f"{name}, {'first time' if first else 'all'}"] = {
                "rows": len(rows),
                "before": asked(folder, "bundle", rows),
                "after": asked(folder, "wider", rows),
                **counted(rows, sorted(listed), catalogue, counts),
            }
    return results


def asked(folder: Path, bundle: str, rows: list[Row]) -> float:
    """Return the HR@20 of a bundle.

    Args:
        folder: Folder of the seed.
        bundle: Name of the bundle's folder.
        rows: Prefixes and targets.
    """
    file = folder / "rows.tsv"
    file.write_text("".join(f"{' '.join(row.prefix)}\t{row.target}\n" for row in rows))
    return round(evaluate_prefixes(folder / bundle, file, [], lambda *_: None)[0].figures[f"P@{K}"].value, 2)


def counted(rows: list[Row], listed: list[str], catalogue: dict[str, Item], counts: Counter[str]) -> dict[str, float]:
    """Return the expected HR@20 of rules without a model, with items of equal score in random order.

    Args:
        rows: Prefixes and targets.
        listed: All candidate items.
        catalogue: All items by id.
        counts: Number of training events by item.
    """
    position_of = {item: position for position, item in enumerate(listed)}
    kinds = [(catalogue[item].category, catalogue[item].brand) for item in listed]
    of_kind: Counter[tuple[str, str]] = Counter()
    for item, number in counts.items():
        of_kind[catalogue[item].category, catalogue[item].brand] += number
    codes = {kind: code for code, kind in enumerate(dict.fromkeys(kinds))}
    code = np.array([codes[kind] for kind in kinds])
    popular = np.array([counts[item] for item in listed], dtype=np.float64)
    kind_popular = np.array([of_kind[kind] for kind in kinds], dtype=np.float64)
    price = np.log([catalogue[item].price or 0.01 for item in listed])
    hits: Counter[str] = Counter()
    for row in rows:
        last, target = position_of[row.prefix[-1]], position_of[row.target]
        same = code == code[last]
        orders = {
            "popularity": popular,
            "popularity of category and brand": kind_popular,
            "category and brand of the last item, by popularity": same * 1e6 + popular,
            "category and brand of the last item, by price": same * 1e6 - abs(price - price[last]),
            "chance": np.zeros(len(listed)),
        }
        for name, scores in orders.items():
            hits[name] += expected(scores, target)
    return {name: round(100 * number / len(rows), 2) for name, number in hits.items()}


def expected(scores: np.ndarray, target: int) -> float:
    """Return the probability that the target is among the first 20, with ties in random order."""
    better, equal = int((scores > scores[target]).sum()), int((scores == scores[target]).sum())
    return min(1.0, max(0, K - better) / equal)


if __name__ == "__main__":
    main()
