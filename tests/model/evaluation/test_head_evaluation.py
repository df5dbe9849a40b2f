import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from clickscore.export.random_bundle import write_random_bundle
from clickscore.export.recalibrate import recalibrate_bundle
from clickscore.model.calibration import Probabilities
from clickscore.model.commands import evaluate_events
from clickscore.model.errors import DataError
from clickscore.model.evaluation.head_baselines import BaseRate, MarkovChain, fit_head_baselines
from clickscore.model.evaluation.head_evaluation import (
    PREFIX_LENGTHS,
    BundleHeads,
    HeadResults,
    choose_hidden_items,
    compute_head_metrics,
    estimate_calibration_noise,
    evaluate_heads,
    select_rows,
)
from clickscore.model.onnx_runtime import open_graph
from clickscore.model.prefix_features import NO_ATTRIBUTES, make_full_sessions, make_item_attributes, mark_purchased
from clickscore.schemas.manifest import NEXT_ACTIONS
from tests.model.builders import TINY, closed, flat, shoppers, write_sessions

pytestmark = pytest.mark.train

ROWS = np.arange(1, 9)
NO_FACTS = make_item_attributes(tuple("abcdefgh"), NO_ATTRIBUTES)
DETERMINED = ["view:a view:b cart:b purchase:b"] * 40 + ["view:a view:b view:c view:d"] * 60
"""A cart is always followed by a purchase, and nothing else is."""


def full_sessions(*sessions: str):
    return make_full_sessions(flat(sessions), ROWS)


def say(number: int, events: int) -> Probabilities:
    rng = np.random.default_rng(number)
    actions = rng.random((events, 5))
    return Probabilities(actions / actions.sum(axis=1, keepdims=True), rng.random(events))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("events")
    sessions = shoppers(700)
    write_sessions(folder / "training.jsonl", sessions[:500])
    write_sessions(folder / "test.jsonl", sessions[500:])
    items = sorted({event.item_id for session in sessions for event in session.events if event.item_id})
    write_random_bundle(folder / "bundle", items, TINY.model)
    return folder


@pytest.fixture(scope="module")
def results(files) -> HeadResults:
    return evaluate_heads(files / "bundle", [files / "training.jsonl"], [files / "test.jsonl"], lambda _: None)


def test_rows_are_beginnings_without_a_purchase():
    sessions_read = full_sessions("view:a view:b purchase:b view:c", "view:a", "view:a view:b view:c")
    assert select_rows(sessions_read, 1).tolist() == [0, 4, 5]
    assert select_rows(sessions_read, 2).tolist() == [1, 6]
    assert select_rows(sessions_read, 3).tolist() == [7]


def test_purchase_counts_as_bought_from_its_own_event_on():
    assert mark_purchased(full_sessions("view:a purchase:a view:b", "view:a")).tolist() == [False, True, True, False]


def test_perfect_probabilities_have_perfect_figures():
    purchase, actions = np.array([0, 1, 0, 1]), np.array([0, 3, 4, 0])
    metrics = compute_head_metrics(Probabilities(np.eye(5)[actions], purchase.astype(float)), actions, purchase)
    assert (metrics.pr_auc, metrics.roc_auc, metrics.brier, metrics.calibration_error) == (1, 1, 0, 0)
    assert metrics.next_action_f1 == 1


def test_action_that_never_comes_does_not_count():
    actions = np.array([0, 0, 4, 4])
    metrics = compute_head_metrics(
        Probabilities(np.eye(5)[[0, 0, 4, 3]], np.full(4, 0.5)), actions, np.array([0, 1, 0, 1])
    )
    assert metrics.next_action_f1 == pytest.approx((1 + 2 / 3) / 2)


def test_noise_falls_with_the_root_of_the_rows():
    small_sample, large_sample = (estimate_calibration_noise(np.full(rows, 0.2)) for rows in (900, 14_400))
    assert small_sample / large_sample == pytest.approx(4, rel=0.2)


def test_shares_are_the_same_for_all():
    sessions_read = full_sessions(*DETERMINED)
    predicted = BaseRate(sessions_read, np.arange(400)).predict(sessions_read, np.array([0, 3]))
    assert predicted.purchase[0] == predicted.purchase[1] == pytest.approx(0.3, abs=0.01)


def test_markov_knows_what_follows_a_cart():
    sessions_read = full_sessions(*DETERMINED)
    predicted = MarkovChain(sessions_read, np.arange(400)).predict(sessions_read, np.array([0, 2, 162]))
    assert predicted.purchase[1] > 0.7
    assert predicted.purchase[2] < 0.2
    assert predicted.next_action[1].argmax() == NEXT_ACTIONS.index("purchase")


def test_all_baselines_learn_what_is_determined():
    sessions_read = full_sessions(*DETERMINED)
    for model in fit_head_baselines(sessions_read, np.flatnonzero(~mark_purchased(sessions_read)), NO_FACTS)[1:]:
        predicted = model.predict(sessions_read, np.array([2, 162]))
        assert predicted.purchase[0] > predicted.purchase[1] + 0.4, model.name
        assert predicted.next_action.sum(axis=1) == pytest.approx(1)


def test_later_events_change_no_prediction(files):
    from clickscore.schemas.manifest import decode_manifest  # noqa: PLC0415

    sessions_read = full_sessions(*DETERMINED)
    models = list(fit_head_baselines(sessions_read, np.flatnonzero(~mark_purchased(sessions_read)), NO_FACTS))
    manifest = decode_manifest((files / "bundle" / "manifest.json").read_bytes())
    models.append(BundleHeads(open_graph(files / "bundle" / "model.onnx"), manifest, models[0]))
    cut = full_sessions(*(" ".join(session.split()[:2]) for session in DETERMINED))
    ends = np.array([1, 161, 201])
    for model in models:
        full_predictions, cut_predictions = (
            model.predict(sessions_read, ends),
            model.predict(cut, np.array([1, 81, 101])),
        )
        for full, shortened in zip(full_predictions, cut_predictions, strict=True):
            assert full == pytest.approx(shortened, abs=1e-6), model.name


def test_results_are_of_each_number_of_events(results):
    assert [result.events for result in results.by_events] == [0, *PREFIX_LENGTHS]
    assert set(results.by_events[0].models) == {
        "bundle",
        "base rate",
        "Markov",
        "logistic regression",
        "LightGBM",
        "base rate, test",
    }
    assert results.by_events[0].rows == sum(result.rows for result in results.by_events[1:])


def test_what_is_learned_beats_chance(results):
    all_rows = results.by_events[0]
    assert all_rows.models["base rate"].pr_auc == pytest.approx(all_rows.base_rate)
    assert all_rows.models["LightGBM"].pr_auc > all_rows.models["bundle"].pr_auc
    assert all_rows.lead.low <= all_rows.lead.value <= all_rows.lead.high


@pytest.mark.slow
def test_order_of_the_test_changes_nothing(files, results):
    lines = (files / "test.jsonl").read_bytes().splitlines(keepends=True)
    (files / "reversed.jsonl").write_bytes(b"".join(reversed(lines)))
    repeated = evaluate_heads(files / "bundle", [files / "training.jsonl"], [files / "reversed.jsonl"], lambda _: None)
    assert repeated == results


def test_bundle_is_judged_with_the_level_of_recent_sessions(files, results):
    write_sessions(files / "recent.jsonl", shoppers(900)[700:])
    training, test, recent = (files / f"{name}.jsonl" for name in ("training", "test", "recent"))
    judged = evaluate_heads(files / "bundle", [training], [test], lambda _: None, recent=[recent], hidden_share=1.0)
    models, known = judged.by_events[0].models, results.by_events[0].models
    assert set(models) - set(known) == {"bundle, recalibrated", "base rate, recent", "LightGBM, recent"}
    assert judged.hidden_share == judged.fallback_share == 1.0
    assert models["bundle, recalibrated"] == models["bundle"]  # the graph answers no row, so there is no level of its
    judged = evaluate_heads(files / "bundle", [training], [test], lambda _: None, recent=[recent])
    corrected = judged.by_events[0].models["bundle, recalibrated"]
    assert corrected.log_loss < known["bundle"].log_loss
    assert corrected.next_action_log_loss < known["bundle"].next_action_log_loss


def test_hidden_items_are_a_share_in_any_order():
    items = [f"item-{number}" for number in range(1000)]
    hidden = choose_hidden_items(items, 0.3)
    assert len(hidden) == pytest.approx(300, abs=50)
    assert hidden == choose_hidden_items(items[::-1], 0.3)
    assert choose_hidden_items(items, 0) == frozenset()
    assert choose_hidden_items(items, 1) == frozenset(items)


def test_test_that_was_learned_is_refused(files):
    with pytest.raises(DataError, match="500 test sessions are also training sessions"):
        evaluate_heads(files / "bundle", [files / "training.jsonl"], [files / "training.jsonl"], lambda _: None)


@pytest.mark.parametrize("words", ["view:a view:b", "purchase:a", "view:a purchase:a"])
def test_test_with_one_outcome_is_refused(files, tmp_path, words):
    test = write_sessions(tmp_path / "test.jsonl", [closed(10_000 + number, words) for number in range(20)])
    with pytest.raises(
        DataError, match="needs sessions with a purchase after their first events, and sessions without"
    ):
        evaluate_heads(files / "bundle", [files / "training.jsonl"], [test], lambda _: None)


def test_recent_file_without_a_session_is_refused(files, tmp_path):
    (recent := tmp_path / "recent.jsonl").touch()
    with pytest.raises(DataError, match="hold no session"):
        evaluate_heads(
            *(files / "bundle", [files / "training.jsonl"], [files / "test.jsonl"], lambda _: None), recent=[recent]
        )


@pytest.mark.parametrize("words", ["view:a view:b", "purchase:a view:a"])
def test_file_too_short_for_the_baselines_is_refused(files, tmp_path, words):
    short = write_sessions(tmp_path / "short.jsonl", [closed(20_000, words)])
    with pytest.raises(DataError, match="too few sessions to fit trees"):
        evaluate_heads(files / "bundle", [short], [files / "test.jsonl"], lambda _: None)
    with pytest.raises(DataError, match="1 recent sessions are too few"):
        evaluate_heads(
            files / "bundle", [files / "training.jsonl"], [files / "test.jsonl"], lambda _: None, recent=[short]
        )


def test_recalibrated_bundle_is_not_recalibrated_again(files, tmp_path):
    write_sessions(tmp_path / "recent.jsonl", shoppers(900)[700:])
    assert recalibrate_bundle(files / "bundle", [tmp_path / "recent.jsonl"], tmp_path / "fresher")
    with pytest.raises(DataError, match="is recalibrated already: name the bundle before"):
        evaluate_heads(
            *(tmp_path / "fresher", [files / "training.jsonl"], [files / "test.jsonl"], lambda _: None),
            recent=[tmp_path / "recent.jsonl"],
        )


@pytest.mark.slow
def test_command_prints_and_writes_the_results(files, results, tmp_path):
    arguments = [files / "bundle", "--sessions", files / "training.jsonl", "--test", files / "test.jsonl"]
    out = tmp_path / "results.json"
    output = CliRunner().invoke(evaluate_events, [str(word) for word in (*arguments, "--json-file", out)]).output
    assert "after 5 events" in output
    assert "LightGBM" in output
    assert msgspec.json.decode(out.read_bytes(), type=HeadResults) == results
