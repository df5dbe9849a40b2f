import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from rich.console import Console

from clickscore.model.commands import evaluate_reasons
from clickscore.model.config import ModelConfig
from clickscore.model.evaluation.reason_faithfulness import (
    CONTRIBUTION,
    TOP_ITEMS,
    ExplainedItem,
    FaithfulnessResults,
    ItemPrediction,
    compute_curves,
    compute_explanations,
    leave_one_out,
    predict_items,
    rank_top_items,
    summarise_curves,
)
from clickscore.model.train import train
from tests.model.builders import TINY, dataset
from tests.model.networks import network
from tests.refusals import refusal

pytestmark = pytest.mark.train

CASE = ExplainedItem(np.array([3, 5, 7]), 9)
WORTH = {3: 4.0, 5: 1.0, 7: 2.0}


def predict(cases):
    """Say that an item is as probable as its session's events are worth, and among the best while 3 is there."""
    return [
        ItemPrediction(sum(WORTH[row] for row in case.events.tolist()), 1 if 3 in case.events else 6) for case in cases
    ]


def curve(*order: int) -> dict[str, float]:
    results = compute_curves([CASE], predict([CASE]), [np.array(order)], predict)
    return {name: float(values[0]) for name, values in results.items()}


def test_events_leave_and_come_in_the_order_of_the_explanation():
    assert curve(0, 2, 1) == {"deletion": (4 + 6) / 2, "insertion": (3 + 1) / 2, "first": 4, "exit": 1}


def test_worst_order_loses_least_and_misses_most():
    assert curve(1, 2, 0) == {"deletion": (1 + 3) / 2, "insertion": (6 + 4) / 2, "first": 1, "exit": 0}


def test_session_without_events_keeps_the_order_of_the_others():
    predicted_sessions: list[list[int]] = []

    def record_and_predict(cases):
        predicted_sessions.extend(case.events.tolist() for case in cases)
        return predict(cases)

    compute_curves([CASE], predict([CASE]), [np.array([1, 2, 0])], record_and_predict)
    assert predicted_sessions == [[3, 7], [3], [5], [5, 7]]


def test_event_is_worth_what_its_leaving_costs():
    assert leave_one_out([CASE], predict([CASE]), predict)[0].tolist() == [4, 1, 2]


def test_best_item_is_told_apart_from_the_best_five():
    contributions = dict.fromkeys(("deletion", "insertion", "first", "exit"), np.arange(2.0 * TOP_ITEMS))
    other_values = contributions | {
        "deletion": contributions["deletion"] - 1,
        "insertion": contributions["insertion"] + 2,
    }
    figures = summarise_curves("other", other_values, contributions).figures
    assert figures["first"].value == (0 + 5) / 2
    assert figures["first@5"].value == 4.5
    assert figures["lead"].value == 3
    assert (figures["first"].low, figures["first"].high) == (0, 5)


def test_answers_are_those_of_the_model_whatever_is_asked_beside():
    model, table = network(ModelConfig(dim=16, ffn=16, max_length=8), 30)
    rng = np.random.default_rng(0)
    sessions = [rng.integers(1, 31, length) for length in rng.integers(1, 8, 300)]
    best = rank_top_items(model, table, sessions)
    predictions = predict_items(
        model,
        table,
        [ExplainedItem(session, row) for session, rows in zip(sessions, best, strict=True) for row in rows],
    )
    assert [prediction.rank for prediction in predictions] == [1, 2, 3, 4, 5] * 300
    all_predictions = predict_items(model, table, [ExplainedItem(sessions[0], row) for row in range(1, 31)])
    assert sum(np.exp(item_prediction.log_probability) for item_prediction in all_predictions) == pytest.approx(
        1, abs=1e-5
    )


def test_explanations_are_of_each_case_whatever_is_explained_beside():
    model, table = network(ModelConfig(dim=16, ffn=16, max_length=8), 30)
    cases = [
        ExplainedItem(np.array([4, 2, 4]), 4),
        ExplainedItem(np.array([7]), 2),
        ExplainedItem(np.array([4, 2, 4]), 9),
    ]
    batched, separate = (
        compute_explanations(model, table, cases),
        [compute_explanations(model, table, [case]) for case in cases],
    )
    for name in (CONTRIBUTION, "attention"):
        for values, (single,) in zip(batched[name], (explanation[name] for explanation in separate), strict=True):
            assert values == pytest.approx(single, abs=1e-5)
    assert batched["attention"][0] == pytest.approx(batched["attention"][2])  # whatever the item
    assert batched[CONTRIBUTION][0] != pytest.approx(batched[CONTRIBUTION][2])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    train(dataset(folder), TINY, folder / "checkpoint", Console(quiet=True))
    return folder / "checkpoint"


def run(*arguments: object):
    return CliRunner().invoke(evaluate_reasons, [str(argument) for argument in arguments])


def test_command_compares_the_orders(checkpoint, tmp_path):
    rows = [
        f"item-{number} item-{number + 1} item-{number} item-{number + 2}\titem-{number + 3}\n" for number in range(20)
    ]
    (tmp_path / "test.tsv").write_text("".join([*rows, "item-1 item-2\titem-3\n"]))
    result = run(checkpoint, "--prefixes", tmp_path / "test.tsv", "--json-file", tmp_path / "found.json")
    assert result.exit_code == 0
    results = msgspec.json.decode((tmp_path / "found.json").read_bytes(), type=FaithfulnessResults)
    assert results.sessions == 20  # the row of two events has no order worth trying
    assert [order.name for order in results.orders] == [
        CONTRIBUTION,
        "attention",
        "leave one out",
        "newest first",
        "random",
    ]
    contributions, *_ = results.orders
    assert contributions.figures["lead"].value == 0
    assert "of 20 sessions" in result.output


def test_file_of_short_beginnings_is_refused(checkpoint, tmp_path):
    (tmp_path / "test.tsv").write_text("item-1 item-2\titem-3\n")
    result = run(checkpoint, "--prefixes", tmp_path / "test.tsv")
    assert "has no prefix with 3 known events or more" in refusal(result)
