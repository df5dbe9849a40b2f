"""Scoring: many sessions in few ONNX Runtime calls, each answered as if it were alone.

Sessions are grouped by a width that depends on their own length alone, so short ones do not pay for long ones, and
what else is in a batch changes no bit of an answer.
"""

from collections.abc import Iterable, Sequence
from typing import Any, cast

import numpy as np

from schemas.manifest import NEXT_ACTIONS
from stream.bundle import Bundle
from stream.request import Request, Scores

WIDTHS = (4, 10, 20, 50)
"""Padded lengths: a session takes the first that holds it. Few, so that a handful of events makes few calls: the
catalogue is read once a call, and outweighs what padding costs."""

DECIMALS = 6  # of scores and probabilities in decisions


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
        self._widths = (*(width for width in WIDTHS if width < self._max_length), self._max_length)
        self._batch = batch

    def score(self, requests: Sequence[Request]) -> list[Scores | None]:
        """Return the model's answer to each request; none where it knows no item of the session."""
        answers: list[Scores | None] = [None] * len(requests)
        groups: dict[int, list[tuple[int, list[int], list[int]]]] = {}
        for at, request in enumerate(requests):
            rows, actions = self._known(request)
            if rows:
                groups.setdefault(self._width(len(rows)), []).append((at, rows, actions))
        for width, group in groups.items():
            for start in range(0, len(group), self._batch):
                part = group[start : start + self._batch]
                scored = self._run(width, [rows for _, rows, _ in part], [actions for _, _, actions in part])
                for (at, _, _), answer in zip(part, scored, strict=True):
                    answers[at] = answer
        return answers

    def _known(self, request: Request) -> tuple[list[int], list[int]]:
        """Return rows and actions of the session's newest events whose item the model knows."""
        row_of = self._row_of.get
        rows, actions = [row_of(item, 0) for item in request.items], list(request.actions)
        if 0 in rows:
            actions = [action for row, action in zip(rows, actions, strict=True) if row]
            rows = [row for row in rows if row]
        return rows[-self._max_length :], actions[-self._max_length :]

    def _width(self, length: int) -> int:
        return next(width for width in self._widths if length <= width)

    def _run(self, width: int, rows: list[list[int]], actions: list[list[int]]) -> Iterable[Scores]:
        feeds = {
            "items": _padded(rows, width),  # (batch, width)
            "actions": _padded(actions, width),  # (batch, width)
            "lengths": np.array([len(session) for session in rows], dtype=np.int64),  # (batch,)
        }
        fed = {name: array for name, array in feeds.items() if name in self._inputs}
        found, scores, next_actions, purchase = cast("list[np.ndarray]", self._session.run(self._outputs, fed))
        item_at = self._item_at
        for candidates, values, probabilities, bought in zip(
            found.tolist(), _rounded(scores), _rounded(next_actions), _rounded(purchase), strict=True
        ):
            yield Scores(
                candidates,
                values,
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
