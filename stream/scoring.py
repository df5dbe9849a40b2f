"""Scoring: many sessions in few ONNX Runtime calls, each answered as if it were alone.

Sessions are grouped by a width that depends on their own length alone, so short ones do not pay for long ones, and
what else is in a batch changes no bit of an answer.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, cast

import numpy as np

from schemas.manifest import NEXT_ACTIONS
from stream.bundle import Bundle
from stream.request import Request, Scores

WIDTHS = (4, 10, 20, 50)
"""Padded lengths: a session takes the first that holds it. Few, so that a handful of events makes few calls: the
catalogue is read once a call, and outweighs what padding costs."""

DECIMALS = 6  # of scores and probabilities in decisions


class _Read(NamedTuple):
    """What the model reads of a request's session."""

    at: int
    """The request's place among those asked."""
    rows: list[int]
    actions: list[int]
    ages: list[int]


class Scorer:
    """A bundle at work."""

    def __init__(self, bundle: Bundle, batch: int = 64) -> None:
        """Score with a bundle, at most `batch` sessions a call."""
        self.version = bundle.manifest.version
        self.popular = bundle.manifest.popular
        self._session = bundle.session
        self._inputs = {node.name for node in bundle.session.get_inputs()}
        self._outputs = ["rows", "scores", "action_probabilities", "purchase"]
        self._item_at = ["", *bundle.items]
        self._row_of = {item: row for row, item in enumerate(bundle.items, start=1)}
        self._max_length = bundle.manifest.max_length
        self._every_event = bundle.manifest.every_event
        self._widths = (*(width for width in WIDTHS if width < self._max_length), self._max_length)
        self._batch = batch

    def score(self, requests: Sequence[Request]) -> list[Scores | None]:
        """Return the model's answer to each request; none where it knows no item of the session.

        A bundle that reads every event has probabilities for those, too, but no candidates.
        """
        answers: list[Scores | None] = [None] * len(requests)
        groups: dict[int, list[_Read]] = {}
        for at, request in enumerate(requests):
            read = self._every(at, request) if self._every_event else self._known(at, request)
            if read.rows:
                groups.setdefault(self._width(len(read.rows)), []).append(read)
        for width, group in groups.items():
            for start in range(0, len(group), self._batch):
                part = group[start : start + self._batch]
                for read, answer in zip(part, self._run(width, part), strict=True):
                    answers[read.at] = answer
        return answers

    def _known(self, at: int, request: Request) -> _Read:
        """Return the session's newest events whose item the model knows."""
        row_of = self._row_of.get
        rows, actions, ages = [row_of(item, 0) for item in request.items], list(request.actions), request.ages
        if 0 in rows:
            known = [place for place, row in enumerate(rows) if row]
            rows, actions = [rows[place] for place in known], [actions[place] for place in known]
            ages = [ages[place] for place in known] if ages else ages
        return self._newest(at, rows, actions, ages)

    def _every(self, at: int, request: Request) -> _Read:
        """Return the session's newest events: an unknown item by a number below 0, no item by 0."""
        row_of, items = self._row_of.get, request.items
        rows = [row_of(item, 0) for item in items]
        if 0 in rows:
            rows = [row or (-1 - items.index(item) if item else 0) for row, item in zip(rows, items, strict=True)]
        return self._newest(at, rows, list(request.actions), request.ages)

    def _newest(self, at: int, rows: list[int], actions: list[int], ages: Sequence[int]) -> _Read:
        most = self._max_length
        return _Read(at, rows[-most:], actions[-most:], list(ages or [0] * len(rows))[-most:])

    def _width(self, length: int) -> int:
        return next(width for width in self._widths if length <= width)

    def _run(self, width: int, sessions: Sequence[_Read]) -> Iterable[Scores]:
        feeds = {
            "items": _padded([read.rows for read in sessions], width),  # (batch, width)
            "actions": _padded([read.actions for read in sessions], width),  # (batch, width)
            "lengths": np.array([len(read.rows) for read in sessions], dtype=np.int64),  # (batch,)
        }
        if "ages" in self._inputs:
            feeds["ages"] = _padded([read.ages for read in sessions], width)  # (batch, width)
        fed = {name: array for name, array in feeds.items() if name in self._inputs}
        found, scores, next_actions, purchase = cast("list[np.ndarray]", self._session.run(self._outputs, fed))
        item_at = self._item_at
        for read, candidates, values, probabilities, bought in zip(
            sessions, found.tolist(), _rounded(scores), _rounded(next_actions), _rounded(purchase), strict=True
        ):
            can_rank = not self._every_event or max(read.rows) > 0
            yield Scores(
                candidates if can_rank else [],
                values if can_rank else [],
                dict(zip(NEXT_ACTIONS, probabilities, strict=True)),
                bought,
                item_at,
            )


def _padded(sessions: list[list[int]], width: int) -> np.ndarray:
    """Return sessions left-aligned and padded with 0: int64 (len(sessions), width)."""
    flat: list[int] = []
    for session in sessions:
        flat += session
        flat += [0] * (width - len(session))
    return np.array(flat, dtype=np.int64).reshape(len(sessions), width)


def _rounded(values: np.ndarray) -> list[Any]:
    """Return values as Python floats of 6 decimals, the form that decisions state."""
    return np.round(values.astype(np.float64), DECIMALS).tolist()
