import numpy as np
import pytest
from click.testing import CliRunner

from clickscore.export.random_bundle import write_random_bundle
from clickscore.model.commands import evaluate_events
from clickscore.model.errors import DataError
from clickscore.model.evaluation.ground_truth import compute_truth_error, read_ground_truth
from clickscore.model.evaluation.head_evaluation import evaluate_heads
from clickscore.model.metrics import log_loss
from clickscore.model.prefix_features import make_full_sessions
from clickscore.model.session_files import read_sessions
from clickscore.model.split import split_sessions
from clickscore.stream.commands.simulate import simulate
from tests.model.builders import TINY

pytestmark = pytest.mark.train


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulated")
    sessions_file, truth = folder / "sessions.jsonl", folder / "truth.jsonl"
    simulate_options = ["--events", "12000", "--sessions", str(sessions_file), "--truth", str(truth)]
    CliRunner().invoke(simulate, simulate_options, catch_exceptions=False)
    split_sessions(sessions_file, folder / "training.jsonl", folder / "test.jsonl", "user", 0.4)
    sessions, _ = read_sessions([sessions_file])
    write_random_bundle(folder / "bundle", sorted(sessions.item_ids), TINY.model)
    return folder


def test_share_is_one_for_the_truth_and_zero_for_the_base_rate():
    truth = np.linspace(0.05, 0.6, 3_000)
    purchases = (np.random.default_rng(0).random(3_000) < truth).astype(np.int64)
    error = compute_truth_error(truth, truth, purchases)
    assert (error.mean_difference, error.calibration_error) == (0, pytest.approx(0, abs=1e-12))
    assert (error.log_loss_share, error.pr_auc_share) == pytest.approx((1, 1))
    base_error = compute_truth_error(np.full(3_000, truth.mean()), truth, purchases)
    assert (base_error.log_loss_share, base_error.pr_auc_share) == pytest.approx((0, 0))


def test_halfway_to_the_truth_has_a_share_between():
    truth = np.linspace(0.05, 0.6, 3_000)
    error = compute_truth_error((truth + truth.mean()) / 2, truth, (truth > 0.5).astype(np.int64))
    assert 0.5 < error.log_loss_share < 1
    assert error.pr_auc_share == pytest.approx(1)  # the order is right
    assert error.mean_difference == pytest.approx(np.abs(truth - truth.mean()).mean() / 2)


def test_truths_lie_beside_their_events(files):
    """Beside any others, even those of the same session, they would foretell what was bought less well."""
    sessions, _ = read_sessions([files / "test.jsonl"])
    labelled = make_full_sessions(sessions, np.ones(len(sessions.item_ids), dtype=np.int64))
    truth = read_ground_truth(files / "truth.jsonl", [files / "test.jsonl"])
    assert len(truth) == len(labelled.items)
    assert truth.mean() == pytest.approx(labelled.purchase.mean(), abs=0.03)
    loss = log_loss(truth, labelled.purchase)
    assert (
        loss
        < min(log_loss(np.roll(truth, 1), labelled.purchase), log_loss(np.roll(truth, -1), labelled.purchase)) - 0.02
    )


def test_event_without_a_truth_is_refused(files, tmp_path):
    lines = (files / "truth.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "less.jsonl").write_bytes(b"".join(lines[: len(lines) // 2]))
    with pytest.raises(DataError, match=r"has no true probability for s7-\d+-\d+, an event of the test"):
        read_ground_truth(tmp_path / "less.jsonl", [files / "test.jsonl"])


def test_file_of_something_else_is_refused(files):
    with pytest.raises(DataError, match="is not a file of true probabilities"):
        read_ground_truth(files / "test.jsonl", [files / "test.jsonl"])


@pytest.mark.slow
def test_trees_come_nearer_to_the_truth_than_the_base_rate(files):
    results = evaluate_heads(
        files / "bundle",
        [files / "training.jsonl"],
        [files / "test.jsonl"],
        lambda _: None,
        truth=files / "truth.jsonl",
    )
    error = results.by_events[0].truth_errors
    assert error["LightGBM"].log_loss_share > 0.1 > error["base rate"].log_loss_share
    assert error["LightGBM"].mean_difference < error["base rate"].mean_difference
    assert error["LightGBM"].log_loss_share < 1


@pytest.mark.slow
def test_command_prints_the_truth_errors(files):
    options = ["--sessions", "training.jsonl", "--test", "test.jsonl", "--truth", "truth.jsonl"]
    options = [str(files / part) if part.endswith("jsonl") else part for part in options]
    result = CliRunner().invoke(evaluate_events, [str(files / "bundle"), *options], catch_exceptions=False)
    assert "against the truth" in result.output
