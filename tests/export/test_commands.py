import dataclasses
import re
import shutil

import msgspec
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from rich.console import Console

from clickscore.export.bundle_options import PRECISIONS
from clickscore.export.commands import export
from clickscore.export.errors import ExportError
from clickscore.export.export_bundle import export_bundle
from clickscore.export.shortlist import RANKINGS
from clickscore.model.checkpoint import (
    load_checkpoint,
    load_tensors,
    read_record,
    save_sessions,
    save_tensors,
)
from clickscore.model.dataset import load_dataset
from clickscore.model.errors import TrainingError
from clickscore.model.session_files import DatasetReport
from clickscore.model.session_neighbours import IndexedSessions, index_sessions
from clickscore.model.train import fit, train
from clickscore.model.vocabulary import read_vocabulary
from clickscore.schemas.manifest import decode_manifest
from clickscore.stream.commands.bundle import bundle as bundle_command
from clickscore.stream.scoring.bundle import check_bundle, load_bundle
from clickscore.stream.scoring.scorer import Scorer
from tests.model.builders import TINY, closed, dataset, write_sessions
from tests.refusals import refusal

pytestmark = pytest.mark.train


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    train(dataset(tmp_path_factory.mktemp("sessions")), TINY, folder, Console(quiet=True))
    return folder


@pytest.fixture(scope="module")
def bundle(checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle")
    export_bundle(checkpoint, folder)
    return folder


def run(*arguments: object):
    return CliRunner().invoke(export, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def with_index(checkpoint, tmp_path_factory):
    """The checkpoint, with an index of a few sessions."""
    folder = tmp_path_factory.mktemp("indexed") / "checkpoint"
    shutil.copytree(checkpoint, folder)
    save_sessions(folder, IndexedSessions(index_sessions(load_checkpoint(checkpoint).held_out), 2.0))
    return folder


@pytest.mark.parametrize("precision", PRECISIONS)
def test_session_neighbours_are_in_the_bundle(with_index, tmp_path, precision):
    result = run(with_index, "--out", tmp_path / "bundle", "--precision", precision)
    report = decode_manifest((tmp_path / "bundle" / "manifest.json").read_bytes()).session_neighbours
    assert report.factor == 2.0
    assert 0 < report.sessions <= len(load_checkpoint(with_index).held_out)
    assert f"session neighbours: {report.sessions} sessions" in result.output
    assert check_bundle(tmp_path / "bundle") == []
    checked = CliRunner().invoke(bundle_command, ["check", str(tmp_path / "bundle")]).output
    assert f"session neighbours: {report.sessions} sessions" in checked


def test_session_neighbours_can_be_left_out(with_index, bundle, tmp_path):
    run(with_index, "--out", tmp_path / "bundle", "--no-session-neighbours")
    assert (tmp_path / "bundle" / "model.onnx").read_bytes() == (bundle / "model.onnx").read_bytes()


def test_help_has_an_example():
    assert "clickscore export checkpoint --out bundle" in run("--help").output


def test_worker_accepts_what_export_wrote(bundle):
    assert check_bundle(bundle) == []


def test_worker_can_score_with_it(bundle):
    assert Scorer(load_bundle(bundle)).version == decode_manifest((bundle / "manifest.json").read_bytes()).version


def test_items_are_those_of_the_checkpoint(checkpoint, bundle):
    assert read_vocabulary(bundle / "items.txt").items == load_checkpoint(checkpoint).vocabulary.items


def test_metrics_are_those_of_the_held_out_sessions_before_they_were_learned(checkpoint, bundle):
    metrics = decode_manifest((bundle / "manifest.json").read_bytes()).metrics
    assert metrics == pytest.approx(load_checkpoint(checkpoint).record.held_out_metrics, abs=1e-6)


def test_bundle_says_what_became_of_the_sessions(checkpoint, bundle):
    report = msgspec.json.decode((bundle / "data-report.json").read_bytes(), type=DatasetReport)
    assert report == load_checkpoint(checkpoint).record.report


def test_export_says_what_its_metrics_mean_and_prints_all_on_request(checkpoint, tmp_path):
    printed = run(checkpoint, "--out", tmp_path / "bundle").output
    assert re.search(r"On \d+ held-out sessions the next item is among the first 20 in [0-9.]+ % of the cases", printed)
    assert re.search(r"PR-AUC of [0-9.]+ \(by chance [0-9.]+\)", printed)
    assert "purchase_brier" not in printed
    assert printed.splitlines()[-1] == f"next: clickscore worker --bundle {tmp_path / 'bundle'}"
    assert "purchase_brier" in run(checkpoint, "--out", tmp_path / "other", "--verbose").output


def test_model_of_views_alone_has_no_figures_of_purchases(tmp_path):
    """PR-AUC 0 and a purchase rate of 0 would look like a bad model."""
    sessions = [closed(number, f"view:{number % 7} view:{(number + 1) % 7}") for number in range(60)]
    views = load_dataset([write_sessions(tmp_path / "sessions.jsonl", sessions)], TINY)
    train(views, dataclasses.replace(TINY, epochs=1), tmp_path / "checkpoint", Console(quiet=True))
    printed = run(tmp_path / "checkpoint", "--out", tmp_path / "bundle", "--verbose").output
    checked = CliRunner().invoke(bundle_command, ["check", str(tmp_path / "bundle")]).output
    assert "purchase_" not in printed + checked
    assert "hit_rate@20" in printed
    assert "hit_rate@20" in checked


def test_bundle_holds_its_checkpoint_where_that_was_asked_for(checkpoint, bundle, tmp_path):
    run(checkpoint, "--out", tmp_path / "bundle", "--trainable")
    assert load_checkpoint(tmp_path / "bundle" / "checkpoint").record.finished
    assert check_bundle(tmp_path / "bundle") == []
    assert not (bundle / "checkpoint").exists()


def test_manifest_says_what_the_model_learned_from(bundle):
    manifest = decode_manifest((bundle / "manifest.json").read_bytes())
    assert "165 sessions for training" in manifest.training_data
    assert "sha256" in manifest.training_data
    assert manifest.popular[0] == read_vocabulary(bundle / "items.txt").item(1)
    assert manifest.framework.startswith("torch ")


def test_manifest_says_what_calibration_did(checkpoint, bundle):
    report = decode_manifest((bundle / "manifest.json").read_bytes()).calibration
    assert report == read_record(checkpoint).calibration.report
    assert report.before.keys() == report.after.keys()


def test_export_says_how_graph_and_model_compare(checkpoint, tmp_path):
    result = run(checkpoint, "--out", tmp_path / "bundle")
    assert result.exit_code == 0
    assert result.output.startswith("parity: 100.00% of")


def test_same_checkpoint_gives_the_same_bundle(checkpoint, bundle, tmp_path):
    export_bundle(checkpoint, tmp_path)
    assert (tmp_path / "manifest.json").read_bytes() == (bundle / "manifest.json").read_bytes()


def test_top_k_is_the_number_of_candidates(checkpoint, tmp_path):
    run(checkpoint, "--out", tmp_path / "bundle", "--top-k", 3)
    assert decode_manifest((tmp_path / "bundle" / "manifest.json").read_bytes()).candidates == 3


def test_int8_says_in_the_manifest_what_it_loses(checkpoint, tmp_path):
    result = run(checkpoint, "--out", tmp_path / "bundle", "--precision", "int8")
    assert "int8: 100.000% of the best 20 of" in result.output
    manifest = decode_manifest((tmp_path / "bundle" / "manifest.json").read_bytes())
    assert (manifest.precision, manifest.fidelity.overlap, manifest.fidelity.hr) == ("int8", 1, 0)
    assert check_bundle(tmp_path / "bundle") == []


def test_precisions_that_help_shows_are_those_of_the_exporter():
    assert list(PRECISIONS) == list(RANKINGS)


def test_bundle_in_the_way_is_refused_in_a_line(checkpoint, bundle):
    result = run(checkpoint, "--out", bundle)
    assert "not empty" in refusal(result)


def test_folder_without_a_checkpoint_is_refused_in_a_line(tmp_path):
    (tmp_path / "empty").mkdir()
    result = run(tmp_path / "empty", "--out", tmp_path / "bundle")
    assert "clickscore train SESSIONS --out" in refusal(result)


@pytest.mark.parametrize("name", ["held_out.npz", "items.txt", "stack.npz", "weights.pt"])
@pytest.mark.parametrize("broken", ["missing", "cut", "a folder"])
def test_broken_checkpoint_is_refused_with_the_file(checkpoint, tmp_path, name, broken):
    folder = tmp_path / "checkpoint"
    shutil.copytree(checkpoint, folder)
    content = (folder / name).read_bytes()
    (folder / name).unlink()
    if broken == "cut":
        (folder / name).write_bytes(content[: len(content) // 2].rpartition(b"\n")[0])
    elif broken == "a folder":
        (folder / name).mkdir()
    with pytest.raises(TrainingError, match=r"weights\.pt cannot" if (name, broken) == ("items.txt", "cut") else name):
        load_checkpoint(folder)


def test_forest_that_breaks_off_is_refused(checkpoint, tmp_path):
    shutil.copytree(checkpoint, tmp_path / "checkpoint")
    with np.load(checkpoint / "stack.npz") as arrays:
        stack = dict(arrays)
    stack["purchase"] = np.array(str(stack["purchase"])[:1000])
    np.savez(tmp_path / "checkpoint" / "stack.npz", **stack)
    with pytest.raises(TrainingError, match="holds a forest that breaks off"):
        load_checkpoint(tmp_path / "checkpoint")


def test_graph_that_does_not_agree_is_not_written(checkpoint, tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in checkpoint.iterdir():
        (broken / path.name).write_bytes(path.read_bytes())
    weights = load_tensors(broken / "weights.pt")
    weights["readout.own.weight"] = torch.full_like(weights["readout.own.weight"], np.nan)
    save_tensors(broken / "weights.pt", weights)
    with pytest.raises(ExportError, match="no bundle was written"):
        export_bundle(broken, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_manifest_is_plain_json(bundle):
    assert isinstance(msgspec.json.decode((bundle / "manifest.json").read_bytes()), dict)


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory):
    """A training that was killed after its first epoch."""
    folder = tmp_path_factory.mktemp("unfinished")

    class KillError(Exception):
        pass

    def kill(_):
        raise KillError

    with pytest.raises(KillError):
        fit(dataset(tmp_path_factory.mktemp("sessions")), TINY, folder, Console(quiet=True), kill)
    return folder


def test_training_that_has_not_ended_is_refused_with_what_to_do(unfinished, tmp_path):
    message = refusal(run(unfinished, "--out", tmp_path / "bundle"))
    assert "holds a training that has not ended (best of 1 of at most 3 epochs" in message
    assert "go on with it by the same `clickscore train` command, or export it as it is with --unfinished" in message
    assert not (tmp_path / "bundle").exists()


def test_unfinished_training_is_marked_where_it_was_asked_for(unfinished, tmp_path):
    done = run(unfinished, "--out", tmp_path / "bundle", "--unfinished")
    assert "beware: the training has not ended" in done.output
    assert decode_manifest((tmp_path / "bundle" / "manifest.json").read_bytes()).unfinished
    checked = CliRunner().invoke(bundle_command, ["check", str(tmp_path / "bundle")])
    assert checked.exit_code == 0
    assert "beware: exported from a training that had not ended (best of 1 of at most 3 epochs" in checked.output


def test_finished_training_is_not_marked(bundle):
    assert not decode_manifest((bundle / "manifest.json").read_bytes()).unfinished
