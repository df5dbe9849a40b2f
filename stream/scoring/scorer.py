"""Scoring: many sessions in few ONNX Runtime calls, each answered as if it were alone.

Sessions are grouped by a width that depends on their own length alone, so short ones do not pay for long ones. Where
a group is so small that its call would cost more than its padding to the next width, it joins the wider one. What else
is in a batch changes no bit of an answer: of the graph's padding that is not taken for granted but tried at the start.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from typing import Any, NamedTuple, cast

import numpy as np

from clickscore.schemas.manifest import EXPLAINED, NEXT_ACTIONS, REASONS
from clickscore.stream.errors import BundleError
from clickscore.stream.request import Reasons, Request, Scores
from clickscore.stream.scoring.bundle import Bundle

WIDTHS = (4, 8, 12, 20, 50)
"""Padded lengths: a session takes the first that holds it, where enough take the same one: a call reads the catalogue,
which outweighs what some padding costs. Multiples of 4, since others were not all computed with the same bits."""

DECIMALS = 6  # of scores and probabilities in decisions
HANDFUL = 8
"""Sessions in one call, up to which it is not worth another thread's waking."""


class ModelInput(NamedTuple):
    """What the model reads of a request's session."""

    at: int
    """The request's place among those asked."""
    rows: list[int]
    actions: list[int]
    ages: list[int]
    places: Sequence[int] = ()
    """Of these events in the request."""


class PendingScores:
    """Requests on their way through ONNX Runtime."""

    def __init__(
        self, unknown: list[int], calls: list[tuple[list[ModelInput], Callable[[], Iterable[Scores]]]]
    ) -> None:
        """Wait for these: places of requests that get no answer, and calls with the sessions that they answer."""
        self._unknown = unknown
        self._calls = calls

    def results(self) -> Iterator[tuple[int, Scores | None]]:
        """Yield each request's place and answer as it comes; none where the model knows no item of the session."""
        for at in self._unknown:
            yield at, None
        for sessions, wait in self._calls:
            for session, scores in zip(sessions, wait(), strict=True):
                yield session.at, scores


class Scorer:
    """A bundle at work. ONNX Runtime has a thread of its own, which lets go of the interpreter while it computes."""

    def __init__(self, bundle: Bundle, batch: int = 64, *, reasons: bool = False) -> None:
        """Score with a bundle, at most `batch` sessions a call, and with `reasons` say what each event brought.

        Raises:
            BundleError: Reasons are wanted of a bundle that gives none.
        """
        self.version = bundle.manifest.version
        self.popular = bundle.manifest.popular
        self._session = bundle.session
        self._inputs = {node.name for node in bundle.session.get_inputs()}
        self._outputs = ["rows", "scores", "action_probabilities", "purchase"]
        self._explained: dict[str, np.ndarray] = {}
        if reasons:
            if all(tensor.name != REASONS for tensor in bundle.manifest.outputs):
                message = f"bundle {self.version} gives no reasons: export it again, or set reasons to 0"
                raise BundleError(message)
            self._outputs.append(REASONS)
            self._explained[EXPLAINED] = np.array([bundle.manifest.candidates])
        self._items_by_row = ["", *bundle.items]
        self._row_of = {item: row for row, item in enumerate(bundle.items, start=1)}
        self._max_length = bundle.manifest.max_length
        self._every_event = bundle.manifest.every_event
        self._widths = (*(width for width in WIDTHS if width < self._max_length), self._max_length)
        self._width_of = [next(width for width in self._widths if n <= width) for n in range(self._max_length + 1)]
        self._batch = batch
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="onnx")
        self._padding_of_a_call = _worth_of_a_call(len(bundle.items)) if self._padding_is_harmless() else 0

    def score(self, requests: Sequence[Request]) -> list[Scores | None]:
        """Return the model's answer to each request; none where it knows no item of the session.

        A bundle that reads every event has probabilities for those, too, but no candidates.
        """
        answers: list[Scores | None] = [None] * len(requests)
        for at, answer in self.submit(requests).results():
            answers[at] = answer
        return answers

    def submit(self, requests: Sequence[Request]) -> PendingScores:
        """Send requests to be scored; ONNX Runtime works on them, or will, while the caller does other things."""
        unknown: list[int] = []
        groups: dict[int, list[ModelInput]] = defaultdict(list)
        for at, request in enumerate(requests):
            read = self._every(at, request) if self._every_event else self._known(at, request)
            if read.rows:
                groups[self._width_of[len(read.rows)]].append(read)
            else:
                unknown.append(at)
        parts = [
            (width, group[start : start + self._batch])
            for width, group in self._merged(groups).items()
            for start in range(0, len(group), self._batch)
        ]
        run = self._at_once if len(parts) == 1 and len(parts[0][1]) <= HANDFUL else self._in_thread
        return PendingScores(unknown, [(part, run(part, self._feeds(width, part))) for width, part in parts])

    def _known(self, at: int, request: Request) -> ModelInput:
        """Return the session's newest events whose item the model knows."""
        row_of = self._row_of.get
        rows, actions, ages = [row_of(item, 0) for item in request.items], list(request.actions), request.ages
        known: Sequence[int] = range(len(rows))
        if 0 in rows:
            known = [place for place, row in enumerate(rows) if row]
            rows, actions = [rows[place] for place in known], [actions[place] for place in known]
            ages = [ages[place] for place in known] if ages else ages
        return self._newest(at, rows, actions, ages, known)

    def _every(self, at: int, request: Request) -> ModelInput:
        """Return the session's newest events: an unknown item by a number below 0, no item by 0."""
        row_of, items = self._row_of.get, request.items
        rows = [row_of(item, 0) for item in items]
        if 0 in rows:
            rows = [row or (-1 - items.index(item) if item else 0) for row, item in zip(rows, items, strict=True)]
        return self._newest(at, rows, list(request.actions), request.ages, range(len(rows)))

    def _newest(
        self, at: int, rows: list[int], actions: list[int], ages: Sequence[int], places: Sequence[int]
    ) -> ModelInput:
        most = self._max_length
        return ModelInput(at, rows[-most:], actions[-most:], list(ages or [0] * len(rows))[-most:], places[-most:])

    def _merged(self, groups: dict[int, list[ModelInput]]) -> dict[int, list[ModelInput]]:
        """Return groups by width, where each that pads for less than a call costs has joined the next wider one."""
        merged: dict[int, list[ModelInput]] = {}
        wider = 0
        for width in sorted(groups, reverse=True):
            if wider and (wider - width) * len(groups[width]) <= self._padding_of_a_call:
                merged[wider] += groups[width]
            else:
                merged[width], wider = groups[width], width
        return merged

    def _padding_is_harmless(self) -> bool:
        """Return whether sessions get the same bits at any width, alone and in company: tried with some of each."""
        rng = np.random.default_rng(0)
        for narrow, wide in zip(self._widths, self._widths[1:], strict=False):
            some = [
                ModelInput(
                    at,
                    rows=rng.integers(1, len(self._items_by_row), length).tolist(),
                    actions=rng.integers(1, 5, length).tolist(),
                    ages=np.sort(rng.integers(0, 3_600_000, length)).tolist(),
                )
                for at, length in enumerate((1, narrow - 1, narrow))
                if length
            ]
            together = self._run(self._feeds(wide, some))
            alone = [self._run(self._feeds(narrow, [one])) for one in some]
            for whole, *parts in zip(together, *alone, strict=True):
                joined = np.concatenate(parts)
                if not np.array_equal(whole[..., : joined.shape[-1]], joined):  # reasons are as wide as the sessions
                    return False
        return True

    def _feeds(self, width: int, sessions: Sequence[ModelInput]) -> dict[str, np.ndarray]:
        feeds = {
            "items": _padded([session.rows for session in sessions], width),  # (batch, width)
            "actions": _padded([session.actions for session in sessions], width),  # (batch, width)
            "lengths": np.array([len(session.rows) for session in sessions], dtype=np.int64),  # (batch,)
        }
        if "ages" in self._inputs:
            feeds["ages"] = _padded([session.ages for session in sessions], width)  # (batch, width)
        return {name: array for name, array in feeds.items() if name in self._inputs} | self._explained

    def _run(self, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        return cast("list[np.ndarray]", self._session.run(self._outputs, feeds))

    def _in_thread(
        self, sessions: Sequence[ModelInput], feeds: dict[str, np.ndarray]
    ) -> Callable[[], Iterable[Scores]]:
        running = self._thread.submit(self._run, feeds)
        return lambda: self._scores(sessions, running.result())

    def _at_once(self, sessions: Sequence[ModelInput], feeds: dict[str, np.ndarray]) -> Callable[[], Iterable[Scores]]:
        return lambda: self._scores(sessions, self._run(feeds))

    def _scores(self, sessions: Sequence[ModelInput], found: list[np.ndarray]) -> Iterable[Scores]:
        rows, scores, next_actions, purchase, *reasons = found
        items_by_row = self._items_by_row
        for session, candidates, values, probabilities, bought, brought in zip(
            sessions,
            rows.tolist(),
            _rounded(scores),
            _rounded(next_actions),
            _rounded(purchase),
            reasons[0] if reasons else repeat(None, len(sessions)),
            strict=True,
        ):
            can_rank = not self._every_event or max(session.rows) > 0
            yield Scores(
                candidates if can_rank else [],
                values if can_rank else [],
                dict(zip(NEXT_ACTIONS, probabilities, strict=True)),
                bought,
                items_by_row,
                None if brought is None else Reasons(brought, session.places),
            )


def _worth_of_a_call(items: int) -> int:
    """Return how many padded events cost as much as a call: it reads the item table, whatever it is asked.

    Measured at 50,000 items of 64 dimensions: a call 1 ms, a padded event 5 us; hardly any at a few hundred items.
    """
    return 25 + items // 250


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
