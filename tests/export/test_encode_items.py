import numpy as np
import pytest
import torch
from click.testing import CliRunner
from rich.console import Console

from clickscore.export.bundle_files import read_export_options
from clickscore.export.bundle_options import CANDIDATES
from clickscore.export.commands import catalogue
from clickscore.export.encode_items import encode_items
from clickscore.export.errors import ExportError
from clickscore.export.export_bundle import export_bundle
from clickscore.export.recalibrate import recalibrate_bundle
from clickscore.model.checkpoint import load_checkpoint, load_texts
from clickscore.model.commands import train as train_command
from clickscore.model.dataset import load_dataset
from clickscore.model.onnx_runtime import open_graph, run_graph
from clickscore.model.text_encoder import open_text_encoder
from clickscore.model.train import train
from clickscore.model.training_batches import PaddedBatch
from clickscore.model.vocabulary import read_vocabulary
from clickscore.schemas.catalogue import Item
from clickscore.schemas.catalogue import encode as encode_item
from clickscore.schemas.manifest import decode_manifest
from clickscore.stream.scoring.bundle import check_bundle
from tests.export.test_trainings import reseed
from tests.model.builders import TINY, closed, shoppers, write_sessions
from tests.model.encoders import write_encoder
from tests.refusals import refusal

pytestmark = pytest.mark.train

ITEMS, AISLE = 60, 6  # shoppers go from an item to the one after it, so from aisle to aisle
AISLES = ("oak chairs", "tea", "zinc pots", "yellow hats", "rugs", "1000 nails", "milk", "big lamps", "soap", "quilts")
KNOWN = [Item(item_id=f"item-{number}", category=AISLES[number // AISLE]) for number in range(ITEMS)]
NEW = [Item(item_id=f"new-{number}", category=aisle) for number, aisle in enumerate(AISLES)]


def write_catalogue(path, items):
    path.write_bytes(b"".join(encode_item(item) + b"\n" for item in items))
    return path


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A trainable bundle, a language model, and a catalogue with an item of each aisle that is new."""
    folder = tmp_path_factory.mktemp("encode")
    sessions = write_sessions(folder / "sessions.jsonl", shoppers(400, ITEMS))
    train(load_dataset([sessions], TINY), TINY, folder / "checkpoint", Console(quiet=True))
    export_bundle(folder / "checkpoint", folder / "bundle", trainable=True)
    export_bundle(folder / "checkpoint", folder / "bare")
    write_encoder(folder / "encoder")
    write_catalogue(folder / "catalogue.jsonl", KNOWN + NEW)
    return folder


def run(*arguments):
    return CliRunner().invoke(catalogue, ["encode", *map(str, arguments)])


@pytest.fixture(scope="module")
def printed(workspace):
    return run(
        workspace / "bundle",
        "--items",
        workspace / "catalogue.jsonl",
        "--encoder",
        workspace / "encoder",
        "--out",
        workspace / "wider",
    ).output


def silent(name, done, total):
    pass


def first(bundle, *items):
    """Return the items that a bundle shows after views of some, best first."""
    vocabulary = read_vocabulary(bundle / "items.txt")
    rows = vocabulary.rows(items).astype(np.int64)[None]
    outputs = run_graph(
        open_graph(bundle / "model.onnx"), PaddedBatch(rows, np.ones_like(rows), np.array([len(items)]))
    )[0]
    return [vocabulary.item(row) for row in outputs[0].tolist()]


def test_help_has_an_example():
    assert "clickscore catalogue encode bundle --items catalogue.jsonl" in run("--help").output


def test_new_items_are_shown_where_items_like_them_are(workspace, printed):
    """A new item is among the first 8 of 70 after views in its aisle, and not after views elsewhere."""
    own_hits = elsewhere = 0
    for number in range(len(AISLES)):
        start, far = number * AISLE, (number * AISLE + ITEMS // 2) % ITEMS
        own_hits += f"new-{number}" in first(workspace / "wider", f"item-{start + 2}", f"item-{start + 3}")[:8]
        elsewhere += f"new-{number}" in first(workspace / "wider", f"item-{far + 2}", f"item-{far + 3}")[:8]
    assert own_hits >= 7
    assert elsewhere <= 1


def test_worker_accepts_the_bundle_and_its_lineage_says_how_it_came(workspace, printed):
    assert check_bundle(workspace / "wider") == []
    original, extended = (
        decode_manifest((workspace / name / "manifest.json").read_bytes()) for name in ("bundle", "wider")
    )
    assert extended.items == original.items + len(NEW)
    assert extended.lineage[0].startswith(f"{original.version}, and 10 items by texts that encoder read, sha256 ")
    assert extended.metrics == original.metrics
    assert (original.candidates, extended.candidates) == (ITEMS, CANDIDATES)  # there were fewer items than candidates


def test_known_items_stay_as_they_are(workspace, printed):
    original, extended = (load_checkpoint(workspace / name / "checkpoint") for name in ("bundle", "wider"))
    assert extended.vocabulary.items == (*original.vocabulary.items, *(item.item_id for item in NEW))
    assert torch.equal(extended.table()[: len(original.vocabulary) + 1], original.table())


def test_command_says_what_it_measured(printed):
    assert "fitted on 60 items that the model has met in sessions" in printed
    assert "70 items, 10 of them new" in printed
    assert "hit rate@20 over 10,000 cross-validated queries" in printed


def test_text_that_was_read_is_not_read_again(workspace, printed, tmp_path):
    later = Item(item_id="later", title="Something else")
    items = write_catalogue(tmp_path / "catalogue.jsonl", [*KNOWN, *NEW, later])
    reports = []
    encode_items(
        workspace / "wider",
        items,
        open_text_encoder(workspace / "encoder"),
        tmp_path / "out",
        lambda *report: reports.append(report),
    )
    assert [report for report in reports if report[0] == "reading texts"] == [
        ("reading texts", 0, 1),
        ("reading texts", 1, 1),
    ]
    assert read_vocabulary(tmp_path / "out" / "items.txt").items[-1] == "later"
    assert len(decode_manifest((tmp_path / "out" / "manifest.json").read_bytes()).lineage) == 2


def test_mean_of_encoded_checkpoints_shows_the_new_items(workspace, printed, tmp_path):
    checkpoint = workspace / "wider" / "checkpoint"
    export_bundle(checkpoint, tmp_path / "mean", mean_with=[reseed(checkpoint, tmp_path / "other")])
    for number in range(0, len(AISLES), 3):
        session = f"item-{number * AISLE + 2}", f"item-{number * AISLE + 3}"
        assert first(tmp_path / "mean", *session)[:8] == first(workspace / "wider", *session)[:8]


def test_result_is_topped_up_with_sessions_on_new_items(workspace, printed, tmp_path):
    closed_sessions = [closed(1000 + number, "view:item-2 view:new-5 view:item-3") for number in range(40)]
    newer = write_sessions(tmp_path / "newer.jsonl", closed_sessions)
    arguments = ["--from", workspace / "wider", "--sessions", newer, "--out", tmp_path / "fresher", "--threads", 1]
    result = CliRunner().invoke(train_command, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    export_bundle(tmp_path / "fresher", tmp_path / "bundle", trainable=True)
    assert "new-5" in first(tmp_path / "bundle", "item-2")[:5]
    assert "new-5" not in first(workspace / "wider", "item-2")[:5]
    assert load_texts(tmp_path / "bundle" / "checkpoint") is not None
    assert len(decode_manifest((tmp_path / "bundle" / "manifest.json").read_bytes()).lineage) == 2


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (KNOWN, "nothing to encode in .*: of 60 items none is new"),
        ([*KNOWN, Item(item_id="bare", price=3)], "of 61 items 1 are new but have neither title, category nor brand"),
        (NEW, "has texts of 0 items that the model knows from sessions; at least 10 are needed"),
    ],
)
def test_catalogue_that_teaches_nothing_is_refused(workspace, tmp_path, items, message):
    path = write_catalogue(tmp_path / "catalogue.jsonl", items)
    with pytest.raises(ExportError, match=message):
        encode_items(workspace / "bundle", path, open_text_encoder(workspace / "encoder"), tmp_path / "out", silent)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("bundle", "encoder", "out", "message"),
    [
        ("bare", "encoder", "out", "export it with --trainable"),
        ("bundle", "bundle", "out", "has no language model"),
        ("bundle", "encoder", "bundle", "not empty"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(workspace, bundle, encoder, out, message):
    items = workspace / "catalogue.jsonl"
    result = run(workspace / bundle, "--items", items, "--encoder", workspace / encoder, "--out", workspace / out)
    assert message in refusal(result)


def test_new_item_without_text_is_left_out_and_told(workspace, tmp_path):
    items = write_catalogue(tmp_path / "catalogue.jsonl", [*KNOWN, *NEW, Item(item_id="bare")])
    out = run(
        workspace / "bundle", "--items", items, "--encoder", workspace / "encoder", "--out", tmp_path / "out"
    ).output
    assert "left out: 1 new items with neither title, category nor brand" in out
    assert "bare" not in read_vocabulary(tmp_path / "out" / "items.txt").items


def test_bundle_keeps_how_it_was_exported_and_a_lost_level_is_told(workspace, tmp_path):
    export_bundle(workspace / "checkpoint", tmp_path / "plain", 30, trainable=True, session_neighbours=False)
    buyers = [closed(2000 + number, f"view:item-{number % 50} purchase:item-{number % 50}") for number in range(200)]
    recent = write_sessions(tmp_path / "recent.jsonl", buyers)
    assert recalibrate_bundle(tmp_path / "plain", [recent], tmp_path / "level") is not None
    files = "--items", workspace / "catalogue.jsonl", "--encoder", workspace / "encoder"
    done = run(tmp_path / "level", *files, "--out", tmp_path / "wider")
    assert done.exit_code == 0, done.output
    assert "recalibrate" in done.output
    assert read_export_options(tmp_path / "wider") == (30, "fp32", False)
