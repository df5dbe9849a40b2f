import numpy as np

from clickscore.model.evaluation.ranking_baselines import CooccurrenceBaseline, PopularityBaseline, SessionNeighbours
from clickscore.model.examples import Examples, make_examples
from tests.model.builders import flat


def view_sessions(*sessions: str) -> Examples:
    """Return sessions of views, told as letters from a."""
    sessions_flat = flat([" ".join(f"view:{letter}" for letter in session) for session in sessions])
    return make_examples(sessions_flat, np.arange(1, 9), 50)


def rows(letters: str) -> np.ndarray:
    return np.array([" abcdefgh".index(letter) for letter in letters])


def ranking(scores: np.ndarray) -> str:
    order = np.argsort(-scores, kind="stable")
    return "".join(" abcdefgh"[row] for row in order if scores[row] > 0)


def test_popularity_counts_events():
    assert ranking(PopularityBaseline(view_sessions("aab", "bab"), 9).scores(rows("c"))) == "ab"


def test_cooccurrence_ranks_what_followed_the_newest_events():
    baseline = CooccurrenceBaseline(view_sessions("ab", "ac", "ac", "de", "df"), 9)
    assert ranking(baseline.scores(rows("a"))) == "cb"
    assert ranking(baseline.scores(rows("ad"))) == "efcb"
    assert ranking(baseline.scores(rows("b"))) == ""


def test_cooccurrence_knows_repeats():
    assert ranking(CooccurrenceBaseline(view_sessions("aab", "aa"), 9).scores(rows("a"))) == "ab"


def test_session_neighbours_rank_what_came_in_the_sessions_most_alike():
    baseline = SessionNeighbours(view_sessions("abc", "ad", "ef", "gh"), 9)
    assert ranking(baseline.scores(rows("ab")))[0] == "b"
    scores = baseline.scores(rows("ab"))
    assert scores[3] > scores[4] > 0
    assert scores[5] == scores[7] == 0


def test_newer_match_counts_more():
    baseline = SessionNeighbours(view_sessions("ac", "bd", "ef", "gh"), 9)
    scores = baseline.scores(rows("ab"))
    assert scores[4] > scores[3] > 0
    assert SessionNeighbours(view_sessions("ab"), 9).scores(rows("")).tolist() == [0] * 9
