import json
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from clickscore.export.commands import recalibrate
from clickscore.export.level_graph import add_level, add_refit, remove_level
from clickscore.export.probes import batch_invariant, run_with_reasons
from clickscore.export.random_bundle import random_examples, write_random_bundle
from clickscore.export.recalibrate import recalibrate_bundle
from clickscore.model.calibration import Affine, Calibration, Probabilities, measure_heads
from clickscore.model.errors import DataError
from clickscore.model.level import correct_level
from clickscore.model.onnx_runtime import open_graph
from clickscore.model.packaged_bundle import resolve_folder
from clickscore.model.prefix_features import compute_features
from clickscore.model.refit import ACTION_HEAD, PURCHASE_HEAD, Refit, select_metrics
from clickscore.model.stack import fit_stack
from clickscore.model.training_batches import pad_prefixes
from clickscore.schemas.manifest import CalibrationReport, RefitReport, content_hash, decode_manifest, encode_manifest
from clickscore.stream.commands.simulate import simulate
from clickscore.stream.scoring.bundle import check_bundle, load_bundle
from clickscore.stream.scoring.scorer import Scorer
from tests.export.test_stack_graph import FACTS, beginnings, random_sessions
from tests.model.builders import TINY, closed, shoppers, write_sessions
from tests.refusals import refusal

pytestmark = pytest.mark.train

ITEMS = [f"item-{number}" for number in range(30)]
REPORT = CalibrationReport(method="", events=0, before={}, after={})
CORRECTION = Calibration(
    next_action=Affine(scales=(0.7,), bias=(0.5, -1.0, 2.0, 0.0, 0.1)),
    purchase=Affine(scales=(1.3,), bias=(-1.5,)),
    report=REPORT,
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recalibrated") / "bundle"
    write_random_bundle(folder, ITEMS, TINY.model)
    return folder


@pytest.fixture(scope="module")
def sessions(tmp_path_factory):
    return write_sessions(tmp_path_factory.mktemp("recent") / "recent.jsonl", shoppers(300))


@pytest.fixture(scope="module")
def fresher(bundle, sessions):
    folder = bundle.parent / "fresher"
    output = CliRunner().invoke(recalibrate, [str(bundle), str(sessions), "--out", str(folder)]).output
    assert "log loss of a purchase" in output
    assert "wrote bundle" in output
    return folder


def manifest_of(folder):
    return decode_manifest((folder / "manifest.json").read_bytes())


def test_worker_serves_the_bundle_under_a_hash_of_its_own(bundle, fresher):
    old, new = manifest_of(bundle), manifest_of(fresher)
    assert check_bundle(fresher) == []
    assert Scorer(load_bundle(fresher)).version == new.version != old.version
    assert new.content_hash == content_hash((fresher / "model.onnx").read_bytes(), (fresher / "items.txt").read_bytes())


def test_manifest_says_how_the_level_came(bundle, fresher):
    old, new = manifest_of(bundle), manifest_of(fresher)
    assert new.lineage == (f"{old.version}, with the level of 300 recent sessions",)
    assert new.level is not None
    assert new.level.sessions == 300
    assert new.level.closed_until == 299_000
    assert new.level.after["purchase_log_loss"] < new.level.before["purchase_log_loss"]
    assert json.loads((fresher / "manifest.json").read_bytes())["level"]["action_shifts"]


def test_second_correction_replaces_the_first(bundle, fresher, sessions, tmp_path):
    again = recalibrate_bundle(fresher, [sessions], tmp_path / "again")
    assert again is not None
    assert again.content_hash == manifest_of(fresher).content_hash
    assert remove_level((fresher / "model.onnx").read_bytes()) == (bundle / "model.onnx").read_bytes()


def test_scores_stay_and_probabilities_follow_the_correction_in_any_batch(bundle):
    old = open_graph(bundle / "model.onnx")
    new = open_graph(add_level((bundle / "model.onnx").read_bytes(), CORRECTION))
    examples = random_examples(len(ITEMS), TINY.model.max_length, 0)
    for size in (1, 2, 3, 5, 8, 33, 64):
        batch = pad_prefixes(examples, np.arange(size))
        before, after = run_with_reasons(old, batch), run_with_reasons(new, batch)
        for index in (0, 1, 4):
            assert before[index].tobytes() == after[index].tobytes()
        expected = correct_level(Probabilities(before[2], before[3]), CORRECTION)
        assert after[2] == pytest.approx(expected.next_action, abs=1e-6)
        assert after[3] == pytest.approx(expected.purchase, abs=1e-6)
        assert all(batch_invariant(new, batch, after, index) for index in range(size))


def test_head_without_a_correction_keeps_its_bits(bundle):
    model = (bundle / "model.onnx").read_bytes()
    same = Affine(scales=(1.0,), bias=(0.0,) * 5)
    purchase_alone = Calibration(next_action=same, purchase=Affine(scales=(1.0,), bias=(0.5,)), report=REPORT)
    names = [node.op_type for node in onnx.load_model_from_string(add_level(model, purchase_alone)).graph.node]
    assert "Pow" not in names
    batch = pad_prefixes(random_examples(len(ITEMS), TINY.model.max_length, 0), np.arange(9))
    before, after = (run_with_reasons(open_graph(graph), batch) for graph in (model, add_level(model, purchase_alone)))
    assert before[2].tobytes() == after[2].tobytes()
    assert (after[3] > before[3]).all()


@pytest.fixture(scope="module")
def own_shop(tmp_path_factory):
    """Sessions of the simulated shop that the demo's bundle knows."""
    file = tmp_path_factory.mktemp("own") / "shop.jsonl"
    arguments = ["--events", "600", "--seed", "11", "--shoppers", "100", "--sessions", str(file)]
    CliRunner().invoke(simulate, arguments, catch_exceptions=False)
    return file


def test_level_that_fits_writes_nothing(demo, own_shop, tmp_path):
    output = CliRunner().invoke(recalibrate, [str(demo), str(own_shop), "--out", str(tmp_path / "out")]).output
    assert "no bundle was written" in output
    assert not (tmp_path / "out").exists()


def test_correction_that_is_no_longer_needed_is_removed(demo, own_shop, strangers, tmp_path):
    corrected = recalibrate_bundle(demo, [strangers], tmp_path / "once")
    removed = recalibrate_bundle(tmp_path / "once", [own_shop], tmp_path / "out")
    assert corrected is not None
    assert removed is not None
    assert corrected.content_hash != removed.content_hash == manifest_of(demo).content_hash


def test_few_sessions_do_not_remove_a_correction(fresher, tmp_path):
    few = write_sessions(tmp_path / "few.jsonl", shoppers(20))
    result = CliRunner().invoke(recalibrate, [str(fresher), str(few), "--out", str(tmp_path / "out")])
    assert "20 of 20 recent sessions can be judged" in refusal(result)
    assert not (tmp_path / "out").exists()


def test_lines_that_are_no_session_are_named(bundle, sessions, tmp_path):
    spoilt = tmp_path / "spoilt.jsonl"
    spoilt.write_bytes(sessions.read_bytes() + b"nothing\n")
    result = CliRunner().invoke(recalibrate, [str(bundle), str(spoilt), "--out", str(tmp_path / "out")])
    assert "left out: 1 x not a closed session" in result.output
    spoilt.write_bytes(b"nothing\n")
    result = CliRunner().invoke(recalibrate, [str(bundle), str(spoilt), "--out", str(tmp_path / "other")])
    assert "no session: name files of closed sessions; left out: 1 x not a closed session" in refusal(result)


def test_folder_in_use_is_refused(bundle, fresher, sessions):
    result = CliRunner().invoke(recalibrate, [str(bundle), str(sessions), "--out", str(fresher)])
    assert "is not empty" in refusal(result)


def test_folder_inside_the_bundle_is_refused(bundle, sessions):
    result = CliRunner().invoke(recalibrate, [str(bundle), str(sessions), "--out", str(bundle / "corrected")])
    assert "lies inside the bundle" in refusal(result)
    assert not (bundle / "corrected").exists()


def test_bundle_without_a_head_is_refused(bundle, sessions, tmp_path):
    lame = tmp_path / "lame"
    lame.mkdir()
    for name in ("model.onnx", "items.txt"):
        (lame / name).write_bytes((bundle / name).read_bytes())
    without = msgspec.structs.replace(manifest_of(bundle), absent_heads=("purchase",))
    (lame / "manifest.json").write_bytes(encode_manifest(without))
    result = CliRunner().invoke(recalibrate, [str(lame), str(sessions), "--out", str(tmp_path / "out")])
    assert "has no purchase" in refusal(result)


def test_file_without_a_session_is_refused(bundle, tmp_path):
    empty = tmp_path / "empty.jsonl"
    empty.write_bytes(b"")
    with pytest.raises(DataError, match="no session"):
        recalibrate_bundle(bundle, [empty], tmp_path / "out")


@pytest.fixture(scope="module")
def demo() -> Path:
    return resolve_folder("demo")


@pytest.fixture(scope="module")
def strangers(tmp_path_factory):
    """Sessions of a shop whose items and habits the demo's bundle does not know."""
    return write_sessions(tmp_path_factory.mktemp("strangers") / "recent.jsonl", shoppers(300))


@pytest.fixture(scope="module")
def refitted(demo, strangers, tmp_path_factory):
    folder = tmp_path_factory.mktemp("refitted") / "bundle"
    output = CliRunner().invoke(recalibrate, [str(demo), str(strangers), "--refit", "--out", str(folder)]).output
    assert "fitted anew: action_probabilities" in output
    level = manifest_of(folder).level
    assert level is not None
    assert level.refit is not None
    for head, words in ((ACTION_HEAD, "log loss of the next action: "), (PURCHASE_HEAD, "log loss of a purchase: ")):
        assert (words in output) == (head in level.refit.heads)
    return folder


def test_refitted_bundle_is_served_and_says_so(demo, refitted):
    assert check_bundle(refitted) == []
    assert Scorer(load_bundle(refitted)).version != manifest_of(demo).version
    level = manifest_of(refitted).level
    assert level is not None
    assert level.refit is not None
    assert ACTION_HEAD in level.refit.heads
    assert level.refit.after == select_metrics(level.refit.after, level.refit.heads)
    assert level.refit.after["next_action_log_loss"] < level.refit.before["next_action_log_loss"]
    assert set(level.action_shifts.values()) == {0}


@pytest.mark.parametrize(
    ("heads", "names"),
    [
        ([ACTION_HEAD], ["next_action_log_loss"]),
        ([PURCHASE_HEAD], ["purchase_log_loss", "purchase_pr_auc", "purchase_calibration_error"]),
        ([], []),
    ],
)
def test_report_has_the_metrics_of_the_replaced_heads_alone(heads, names):
    label = np.array([0, 1])
    measured = measure_heads(Probabilities(np.full((2, 5), 0.2), np.array([0.3, 0.6])), label, label)
    assert list(select_metrics(measured, heads)) == names


def test_refit_that_replaces_no_head_says_so(demo, tmp_path):
    alike = write_sessions(tmp_path / "alike.jsonl", [closed(1_000 * index, "view:a") for index in range(200)])
    output = CliRunner().invoke(recalibrate, [str(demo), str(alike), "--refit", "--out", str(tmp_path / "out")]).output
    assert "no head was fitted anew" in output
    assert "\nfitted anew" not in output


@pytest.mark.parametrize("words", ["view:a view:b", "purchase:a"])
def test_sessions_too_few_for_a_refit_are_refused(demo, tmp_path, words):
    """A session that begins with a purchase cannot be judged: a thousand of them are too few as well."""
    few = [closed(1_000 * index, words) for index in range(149 if words[0] == "v" else 1_000)]
    write_sessions(tmp_path / "few.jsonl", few)
    arguments = [str(demo), str(tmp_path / "few.jsonl"), "--refit", "--out", str(tmp_path / "out")]
    assert "at least 150 are needed" in refusal(CliRunner().invoke(recalibrate, arguments))


def test_correction_without_a_refit_starts_from_the_first_graph(demo, refitted, strangers, tmp_path):
    assert remove_level((refitted / "model.onnx").read_bytes()) == (demo / "model.onnx").read_bytes()
    shifted = recalibrate_bundle(refitted, [strangers], tmp_path / "shifted")
    assert shifted is not None
    assert shifted.level is not None
    assert shifted.level.refit is None
    assert set(shifted.level.action_shifts.values()) != {0}


def test_refit_of_one_head_leaves_the_other_its_bits(demo, refitted):
    stack = fit_stack([full_sessions := random_sessions(80)], np.arange(len(full_sessions.items)), FACTS, 20, 0)
    stack = stack.grow(manifest_of(demo).items)
    model, batch = (demo / "model.onnx").read_bytes(), beginnings()
    before = run_with_reasons(open_graph(model), batch)
    for head, index, other in ((ACTION_HEAD, 2, 3), (PURCHASE_HEAD, 3, 2)):
        refit = Refit(stack, RefitReport(heads=(head,), events=0, before={}, after={}))
        after = run_with_reasons(open_graph(add_refit(model, refit)), batch)
        assert after[other].tobytes() == before[other].tobytes()
        logits = stack.logits(compute_features(batch, stack.item_features))
        expected = refit.replace(Probabilities(before[2], before[3]), logits)
        assert after[index] == pytest.approx(expected[index - 2], abs=1e-5)


def test_bundle_without_trees_is_not_refitted(bundle, sessions, tmp_path):
    result = CliRunner().invoke(recalibrate, [str(bundle), str(sessions), "--refit", "--out", str(tmp_path / "out")])
    assert "omit --refit" in refusal(result)
