"""Scoring: an answer depends on nothing but its own session."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest

from clickscore.schemas.manifest import NEXT_ACTIONS
from clickscore.stream.errors import BundleError
from clickscore.stream.policy.experiments import MODEL
from clickscore.stream.policy.session_reasons import find_reasons
from clickscore.stream.request import Request, Scores
from clickscore.stream.scoring.bundle import load_bundle
from clickscore.stream.scoring.scorer import ModelInput, Scorer
from tests.bundles import ITEMS, small_bundle
from tests.events import view


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_bundle(tmp_path_factory.mktemp("bundles") / "small")


@pytest.fixture(scope="module")
def scorer(folder: Path) -> Scorer:
    return Scorer(load_bundle(folder))


class PaddingDependentSession:
    """A session of ONNX Runtime whose scores depend on the padding."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def get_inputs(self) -> Any:
        return self._session.get_inputs()

    def run(self, outputs: Any, feeds: Any) -> Any:
        rows, scores, *probabilities = self._session.run(outputs, feeds)
        return [rows, scores + feeds["items"].shape[1], *probabilities]


class FailingSession(PaddingDependentSession):
    """A session of ONNX Runtime that fails on data, which no declared shape shows."""

    def run(self, outputs: Any, feeds: Any) -> Any:
        message = "[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Status Message: index 7 is out of bounds"
        raise RuntimeError(message)


def request(*items: str, actions: bytes | None = None) -> Request:
    actions = actions or bytes(1 + number % 6 for number in range(len(items)))
    return Request("e-0-0", view("ann", 0), "s", len(items), list(items), actions, frozenset(), MODEL, False, [])


def requests(count: int, seed: int = 0) -> list[Request]:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 51, count)
    return [request(*(f"item-{row}" for row in rng.integers(1, ITEMS + 1, length))) for length in lengths]


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 2, 3, 7, 32, 64])
def test_answer_is_the_same_bit_for_bit_in_any_batch(folder: Path, batch: int):
    batch_requests = requests(300)
    together = Scorer(load_bundle(folder), batch).score(batch_requests)
    separate = [Scorer(load_bundle(folder), 1).score([single])[0] for single in batch_requests[:20]]
    assert together == Scorer(load_bundle(folder), 64).score(batch_requests)
    assert together[:20] == separate


def test_padding_to_a_wider_call_changes_no_bit(folder: Path):
    """Otherwise small groups would not be merged, and a few events would need several calls."""
    assert Scorer(load_bundle(folder))._padding_is_harmless()


@pytest.mark.slow
@pytest.mark.parametrize("padding_per_call", [0, 100, 10_000])
def test_answer_is_the_same_bit_for_bit_however_groups_are_merged(folder: Path, padding_per_call: int):
    batch_requests = requests(40, seed=1)
    scorer = Scorer(load_bundle(folder))
    scorer._padding_per_call = padding_per_call
    assert scorer.score(batch_requests) == [
        Scorer(load_bundle(folder), 1).score([single])[0] for single in batch_requests
    ]


def test_groups_are_merged_where_a_call_costs_more_than_their_padding(folder: Path):
    scorer = Scorer(load_bundle(folder))
    scorer._padding_per_call = 20
    few, many = ModelInput(0, [1], [1], [0]), [ModelInput(index, [1] * 9, [1] * 9, [0] * 9) for index in range(9)]
    assert scorer._merged({4: [few], 10: [*many]}) == {10: [*many, few]}
    assert scorer._merged({4: [few] * 4, 10: [*many]}) == {4: [few] * 4, 10: many}


def test_graph_that_depends_on_padding_is_called_by_width(folder: Path, tmp_path: Path):
    bundle = load_bundle(folder)
    scorer = Scorer(bundle._replace(session=PaddingDependentSession(bundle.session)))
    assert scorer._padding_per_call == 0


def test_graph_that_fails_on_a_session_is_refused_in_words(folder: Path):
    bundle = load_bundle(folder)
    with pytest.raises(BundleError, match=r"fails on a session: index 7 is out of bounds\. Export it again"):
        Scorer(bundle._replace(session=FailingSession(bundle.session)))


def test_next_requests_may_be_submitted_before_the_first_are_scored(scorer: Scorer):
    first, second = requests(70, seed=2), requests(70, seed=3)
    pending = scorer.submit(first)
    later = scorer.submit(second)
    assert [answer for _, answer in sorted(pending.results())] == scorer.score(first)
    assert [answer for _, answer in sorted(later.results())] == scorer.score(second)


@pytest.mark.parametrize("count", [1, 70])
def test_calls_for_decisions_are_measured(folder: Path, count: int):
    scorer = Scorer(load_bundle(folder), timer=iter(range(1_000)).__next__)
    scorer.score(requests(count))
    assert (scorer.calls, scorer.call_seconds) == (0, 0)
    list(scorer.submit(requests(count)).results())
    assert scorer.calls == scorer.call_seconds > 0


def test_candidates_are_distinct_items_best_first(scorer: Scorer):
    answer = answered(scorer, "item-1", "item-2")
    assert len({item for item, _ in answer.candidates()}) == 64
    assert answer.scores == sorted(answer.scores, reverse=True)


def test_probabilities_are_probabilities(scorer: Scorer):
    answer = answered(scorer, "item-1")
    assert tuple(answer.actions) == NEXT_ACTIONS
    assert sum(answer.actions.values()) == pytest.approx(1, abs=1e-5)
    assert 0 < answer.purchase < 1


def test_unknown_item_is_left_out(scorer: Scorer):
    with_unknown = Request(
        "e-0-0", view("ann", 0), "s", 3, ["item-1", "new", "item-2"], b"\1\2\3", frozenset(), MODEL, False, []
    )
    without = Request("e-0-0", view("ann", 0), "s", 2, ["item-1", "item-2"], b"\1\3", frozenset(), MODEL, False, [])
    assert scorer.score([with_unknown]) == scorer.score([without])


def test_session_of_unknown_items_alone_gets_no_answer(scorer: Scorer):
    assert scorer.score([request("new", "newer"), request("item-1")])[0] is None


def test_search_is_left_out(scorer: Scorer):
    assert scorer.score([request("")]) == [None]


def test_long_session_is_scored_by_its_newest_events(scorer: Scorer):
    items = [f"item-{number}" for number in range(1, 61)]
    newest = Request(
        "e",
        view("ann", 0),
        "s",
        60,
        items[-50:],
        bytes(1 + n % 6 for n in range(60))[-50:],
        frozenset(),
        MODEL,
        False,
        [],
    )
    assert scorer.score([request(*items)]) == scorer.score([newest])


def test_no_requests_get_no_answers(scorer: Scorer):
    assert scorer.score([]) == []


def answered(scorer: Scorer, *items: str) -> Scores:
    answer = scorer.score([request(*items)])[0]
    assert answer is not None
    return answer


@pytest.fixture(scope="module")
def reading_all(folder: Path) -> Scorer:
    """Return a scorer of the same graph whose manifest says that it reads every event."""
    bundle = load_bundle(folder)
    return Scorer(bundle._replace(manifest=msgspec.structs.replace(bundle.manifest, every_event=True)))


def read(scorer: Scorer, *items: str, ages: tuple[int, ...] = ()) -> tuple[list[int], list[int], list[int]]:
    session = scorer._all_events(0, msgspec.structs.replace(request(*items), ages=ages))
    return session.rows, session.actions, session.ages


def test_unknown_items_are_told_apart_where_every_event_is_read(reading_all: Scorer):
    rows, actions, _ = read(reading_all, "item-1", "new", "", "newer", "new")
    assert (rows, actions) == ([1, -2, 0, -4, -2], [1, 2, 3, 4, 5])


def test_ages_are_read_with_their_events(reading_all: Scorer):
    items = tuple(f"item-{number}" for number in range(1, 61))
    rows, _, ages = read(reading_all, *items, ages=tuple(range(60)))
    assert (rows[0], ages[0], len(ages)) == (11, 10, 50)


class AgeReadingSession:
    """A session of ONNX Runtime whose graph adds the ages of a session to its scores."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def get_inputs(self) -> Any:
        return [*self._session.get_inputs(), SimpleNamespace(name="ages")]

    def run(self, outputs: Any, feeds: Any) -> Any:
        known = {name: array for name, array in feeds.items() if name != "ages"}
        rows, scores, *probabilities = self._session.run(outputs, known)
        return [rows, scores + feeds["ages"].sum(axis=1, keepdims=True), *probabilities]


def test_ages_reach_a_graph_that_reads_them(folder: Path, scorer: Scorer):
    bundle = load_bundle(folder)
    reading = Scorer(bundle._replace(session=AgeReadingSession(bundle.session)))
    aged = msgspec.structs.replace(request("item-1", "item-2"), ages=[0, 1_000])
    ((_, scores),) = reading.submit([aged]).results()
    ((_, plain),) = scorer.submit([aged]).results()
    assert scores
    assert plain
    assert scores.scores == pytest.approx([score + 1_000 for score in plain.scores])


def test_ages_of_events_that_are_not_read_are_left_out(scorer: Scorer):
    session = scorer._known_events(0, msgspec.structs.replace(request("item-1", "new", "item-2"), ages=[0, 5, 9]))
    assert (session.rows, session.ages) == ([1, 2], [0, 9])


def test_session_of_unknown_items_has_probabilities_but_no_candidates(reading_all: Scorer):
    answer = answered(reading_all, "new", "newer")
    assert list(answer.candidates()) == []


@pytest.fixture(scope="module")
def explaining(folder: Path) -> Scorer:
    return Scorer(load_bundle(folder), reasons=True)


def told(answer: Scores | None) -> list[list[tuple[float, int]]]:
    """Return what each event brought to each candidate."""
    assert answer is not None
    assert answer.reasons is not None
    return [list(answer.reasons.contributions_to(candidate)) for candidate in range(len(answer.rows))]


def test_answer_is_the_same_bit_for_bit_with_reasons(scorer: Scorer, explaining: Scorer):
    batch_requests = requests(100, seed=4)
    bare = [answer._replace(reasons=None) for answer in explaining.score(batch_requests) if answer is not None]
    assert bare == scorer.score(batch_requests)


def test_reasons_are_the_same_bit_for_bit_in_any_batch(folder: Path, explaining: Scorer):
    batch_requests = requests(150, seed=5)
    separate = Scorer(load_bundle(folder), 1, reasons=True)
    assert explaining._padding_per_call > 0  # reasons, too, have the same bits at any width
    assert [told(answer) for answer in explaining.score(batch_requests)] == [
        told(separate.score([one])[0]) for one in batch_requests
    ]


def test_first_candidates_have_ranked_events(explaining: Scorer):
    for asked, answer in zip(batch := requests(9, seed=4), explaining.score(batch), strict=True):
        assert answer is not None
        assert answer.reasons is not None
        assert answer.reasons.ranked is not None
        unranked = answer.reasons._replace(ranked=None)
        assert find_reasons(range(16), asked, answer.reasons, 3) == find_reasons(range(16), asked, unranked, 3)


def test_score_of_an_item_is_that_of_the_candidate(scorer: Scorer):
    answer = answered(scorer, "item-1", "item-2")
    candidates, items = dict(answer.candidates()), [*answer.items_by_row[1:], "new"]
    assert 0 < len(candidates) < len(items) - 1
    for table in (answer, answer._replace(row_of=None)):
        assert [table.score_of(item) for item in items] == [candidates.get(item) for item in items]


def test_reasons_name_events_by_their_place_in_the_session(explaining: Scorer):
    answers = explaining.score([request("new", "item-1", "newer", "item-2"), request("item-1", "item-2")])
    among, separate = (told(answer) for answer in answers)
    assert {tuple(at for _, at in of) for of in among} == {(1, 3)}
    assert {tuple(at for _, at in of) for of in separate} == {(0, 1)}


def test_reasons_name_the_newest_events_of_a_long_session(explaining: Scorer):
    answer = explaining.score([request(*(f"item-{number}" for number in range(1, 61)))])[0]
    assert [at for _, at in told(answer)[0]] == list(range(10, 60))


def test_bundle_that_gives_no_reasons_is_refused_where_they_are_wanted(folder: Path):
    bundle = load_bundle(folder)
    outputs = tuple(tensor for tensor in bundle.manifest.outputs if tensor.name != "reasons")
    silent = bundle._replace(manifest=msgspec.structs.replace(bundle.manifest, outputs=outputs))
    with pytest.raises(BundleError, match="gives no reasons: export it again, or set reasons to 0"):
        Scorer(silent, reasons=True)


class OutsideSession(PaddingDependentSession):
    """A session of ONNX Runtime whose second and third candidate are no items, or have no score."""

    def run(self, outputs: Any, feeds: Any) -> Any:
        rows, scores, *others = self._session.run(outputs, feeds)
        rows[:, 1], scores[:, 2] = ITEMS + 1, np.nan
        return [rows, scores, *others]


@pytest.mark.parametrize("reasons", [False, True])
def test_rows_beyond_the_item_list_are_no_candidates(folder: Path, reasons: bool):
    good = load_bundle(folder)
    foreign = good._replace(session=OutsideSession(good.session))
    (expected,), (scores,) = (Scorer(bundle, reasons=reasons).score([request("item-1")]) for bundle in (good, foreign))
    assert expected is not None
    assert scores is not None
    kept = [0, *range(3, len(expected.rows))]
    assert scores.rows == [expected.rows[index] for index in kept]
    assert scores.scores == [expected.scores[index] for index in kept]
    if expected.reasons and scores.reasons:
        np.testing.assert_array_equal(scores.reasons.contributions, expected.reasons.contributions[kept])


def test_absent_heads_are_null(folder: Path):
    bundle = load_bundle(folder)
    manifest = msgspec.structs.replace(bundle.manifest, absent_heads=("action_probabilities", "purchase"))
    (scores,) = Scorer(bundle._replace(manifest=manifest)).score([request("item-1")])
    assert scores is not None
    assert (scores.actions, scores.purchase) == (None, None)


def test_known_items_are_counted(scorer: Scorer):
    assert scorer.count_known(["item-1", "unknown", "item-2"]) == 2
