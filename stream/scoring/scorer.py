"""Scoring: score micro-batches of sessions with ONNX Runtime; the scores are batch-invariant.

A micro-batch holds sessions padded to the same width. The width follows from the length of a session alone, so short
sessions do not pay for long ones. A small group joins the next wider group where the padding costs less than a call.

Batch-invariant means: the scores of a session are bit-identical for every micro-batch. For padding this is verified
once, at start-up (`_padding_is_harmless`).
"""

from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import compress, repeat
from typing import Any, NamedTuple, cast

import numpy as np

from clickscore.model.graph_trial import shorten
from clickscore.schemas.decisions import SCORE_DECIMALS
from clickscore.schemas.manifest import EXPLAINED, HEADS, NEXT_ACTIONS, REASONS, padded_widths
from clickscore.stream.errors import BundleError
from clickscore.stream.request import Reasons, Request, Scores, rank_events
from clickscore.stream.scoring.bundle import Bundle
from clickscore.stream.scoring.item_vectors import unit_vectors

RANKED = 16
"""Number of first candidates whose reasons are ranked for a whole micro-batch: most lists of 10 items end within."""
SMALL_CALL = 8
"""Largest number of sessions scored in the caller's thread: waking another thread would cost more time."""


_Run = Callable[[], list[np.ndarray]]
"""Calls the graph on a micro-batch, and returns its outputs."""


class ModelInput(NamedTuple):
    """The events of a request's session for the model, at most `max_length` events."""

    request_index: int
    """Index of the request among the submitted requests."""
    rows: list[int]
    """Item of each event as a row of the item table. Bundles for all events get 0 for a search, and a negative number
    for an unknown item."""
    actions: list[int]
    """Action code of each event."""
    ages: list[int]
    """Age of each event, ms since the session began."""
    positions: Sequence[int] = ()
    """Position of each event in `Request.items`."""


class PendingScores:
    """Submitted requests, with their scores still being computed."""

    def __init__(
        self, unknown: list[int], calls: list[tuple[list[ModelInput], Callable[[], Iterable[Scores]]]]
    ) -> None:
        """Collect the calls of a submission.

        Args:
            unknown: Indices of the requests without a known item and so without scores.
            calls: The sessions of each micro-batch, and a function to wait for their scores.
        """
        self._unknown = unknown
        self._calls = calls

    def results(self) -> Iterator[tuple[int, Scores | None]]:
        """Yield (index, scores) of each request, in order of completion; no scores without a known item."""
        for index in self._unknown:
            yield index, None
        for sessions, wait in self._calls:
            for session, scores in zip(sessions, wait(), strict=True):
                yield session.request_index, scores


class Scorer:
    """Scores requests with a bundle. ONNX Runtime computes in a second thread, without Python's interpreter lock."""

    def __init__(
        self, bundle: Bundle, batch: int = 64, *, reasons: bool = False, timer: Callable[[], float] | None = None
    ) -> None:
        """Set up the widths and the thread.

        Args:
            bundle: The bundle.
            batch: Largest number of sessions in a micro-batch.
            reasons: Whether to ask the graph for the contribution of each event.
            timer: Returns a time that never goes back, s, to measure the calls of the graph; None measures nothing.

        Raises:
            BundleError: Reasons are requested, but the graph has no output `reasons`; or the graph fails on a session.
        """
        self.calls = 0
        """Number of measured calls of the graph: those for decisions, if the scorer has a timer."""
        self.call_seconds = 0.0
        """Time in measured calls of the graph, s."""
        self._timer = timer
        self.version = bundle.manifest.version
        self.trained_until = bundle.manifest.trained_until
        """Event time of the newest training event, ms; 0 if unknown."""
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
        self._directions = bundle.directions
        self._row_of = {item: row for row, item in enumerate(bundle.items, start=1)}
        self._has_actions, self._has_purchase = (name not in bundle.manifest.absent_heads for name in HEADS)
        self._max_length = bundle.manifest.max_length
        self._every_event = bundle.manifest.every_event
        self._widths = padded_widths(self._max_length)
        self._width_of = [next(width for width in self._widths if n <= width) for n in range(self._max_length + 1)]
        self._batch = batch
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="onnx")
        try:
            is_harmless = self._padding_is_harmless()
        except Exception as exc:  # ONNX Runtime's exceptions share no base class that it exports
            message = f"the graph of bundle {self.version} fails on a session: {shorten(exc)}. Export it again"
            raise BundleError(message) from exc
        self._padding_per_call = _padding_worth_a_call(len(bundle.items)) if is_harmless else 0

    @property
    def known_items(self) -> Container[str]:
        """Items that the bundle knows."""
        return self._row_of

    def item_vectors(self, items: Sequence[str]) -> np.ndarray:
        """Return the bundle's vector of each item at length 1; zeros for an item without: (items, dimensions)."""
        if self._directions is None:
            return np.zeros((len(items), 1))
        row_of = self._row_of.get
        return unit_vectors(self._directions, [row_of(item, 0) for item in items])

    def count_known(self, items: Iterable[str]) -> int:
        """Return the number of items that the bundle knows."""
        return sum(item in self._row_of for item in items)

    def score(self, requests: Sequence[Request]) -> list[Scores | None]:
        """Return the scores of each request; no scores where the model knows no item of the session.

        A bundle for all events still gives probabilities to a session of unknown items, but no candidates.
        """
        results: list[Scores | None] = [None] * len(requests)
        for index, scores in self.submit(requests, measured=False).results():
            results[index] = scores
        return results

    def submit(self, requests: Sequence[Request], *, measured: bool = True) -> PendingScores:
        """Start scoring requests in micro-batches, and return without waiting for the scores.

        Args:
            requests: The requests.
            measured: Whether the calls of the graph are measured: those for decisions are.
        """
        unknown: list[int] = []
        groups: dict[int, list[ModelInput]] = defaultdict(list)
        for index, request in enumerate(requests):
            session = self._all_events(index, request) if self._every_event else self._known_events(index, request)
            if session.rows:
                groups[self._width_of[len(session.rows)]].append(session)
            else:
                unknown.append(index)
        batches = [
            (width, group[start : start + self._batch])
            for width, group in self._merged(groups).items()
            for start in range(0, len(group), self._batch)
        ]
        is_small = len(batches) == 1 and len(batches[0][1]) <= SMALL_CALL
        start = self._run_inline if is_small else self._run_in_thread
        run = partial(self._run_measured, self._timer) if self._timer and measured else self._run
        calls = [(batch, start(batch, partial(run, self._feeds(width, batch)))) for width, batch in batches]
        return PendingScores(unknown, calls)

    def _known_events(self, index: int, request: Request) -> ModelInput:
        """Return the newest events of the session with items known to the model."""
        row_of = self._row_of.get
        rows, actions, ages = [row_of(item, 0) for item in request.items], list(request.actions), request.ages
        positions: Sequence[int] = range(len(rows))
        if 0 in rows:
            positions = [position for position, row in enumerate(rows) if row]
            rows, actions = [rows[position] for position in positions], [actions[position] for position in positions]
            ages = [ages[position] for position in positions] if ages else ages
        return self._newest(index, rows, actions, ages, positions)

    def _all_events(self, index: int, request: Request) -> ModelInput:
        """Return the newest events of the session: each unknown item as another negative number, a search as 0."""
        row_of, items = self._row_of.get, request.items
        rows = [row_of(item, 0) for item in items]
        if 0 in rows:
            rows = [row or (-1 - items.index(item) if item else 0) for row, item in zip(rows, items, strict=True)]
        return self._newest(index, rows, list(request.actions), request.ages, range(len(rows)))

    def _newest(
        self, index: int, rows: list[int], actions: list[int], ages: Sequence[int], positions: Sequence[int]
    ) -> ModelInput:
        """Return the last `max_length` events; absent ages become 0."""
        limit = self._max_length
        ages = list(ages or [0] * len(rows))
        return ModelInput(index, rows[-limit:], actions[-limit:], ages[-limit:], positions[-limit:])

    def _merged(self, groups: dict[int, list[ModelInput]]) -> dict[int, list[ModelInput]]:
        """Return the groups by width; a group joins the next wider group if the padding costs less than a call."""
        merged: dict[int, list[ModelInput]] = {}
        wider = 0
        for width in sorted(groups, reverse=True):
            if wider and (wider - width) * len(groups[width]) <= self._padding_per_call:
                merged[wider] += groups[width]
            else:
                merged[width], wider = groups[width], width
        return merged

    def _padding_is_harmless(self) -> bool:
        """Return whether scores are bit-identical at the next wider width, tried with random sessions of each width."""
        rng = np.random.default_rng(0)
        for narrow, wide in zip(self._widths, self._widths[1:], strict=False):
            sessions = [
                ModelInput(
                    index,
                    rows=rng.integers(1, len(self._items_by_row), length).tolist(),
                    actions=rng.integers(1, 5, length).tolist(),
                    ages=np.sort(rng.integers(0, 3_600_000, length)).tolist(),
                )
                for index, length in enumerate((1, narrow - 1, narrow))
                if length
            ]
            batched = self._run(self._feeds(wide, sessions))
            separate = [self._run(self._feeds(narrow, [session])) for session in sessions]
            for expected, *parts in zip(batched, *separate, strict=True):
                joined = np.concatenate(parts)
                if not np.array_equal(expected[..., : joined.shape[-1]], joined):  # reasons are as wide as the sessions
                    return False
        return True

    def _feeds(self, width: int, sessions: Sequence[ModelInput]) -> dict[str, np.ndarray]:
        """Return the inputs of the graph, padded to a width."""
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

    def _run_measured(self, timer: Callable[[], float], feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        started_at = timer()
        outputs = self._run(feeds)
        self.calls += 1
        self.call_seconds += timer() - started_at
        return outputs

    def _run_in_thread(self, sessions: Sequence[ModelInput], run: _Run) -> Callable[[], Iterable[Scores]]:
        """Start a call in the second thread; return a function to wait for the scores."""
        running = self._thread.submit(run)
        return lambda: self._scores(sessions, running.result())

    def _run_inline(self, sessions: Sequence[ModelInput], run: _Run) -> Callable[[], Iterable[Scores]]:
        """Return a function to make the call in the caller's thread."""
        return lambda: self._scores(sessions, run())

    def _scores(self, sessions: Sequence[ModelInput], outputs: list[np.ndarray]) -> Iterator[Scores]:
        """Yield the scores of each session of a micro-batch.

        `outputs` are the arrays of the graph: rows and scores (batch, candidates), action probabilities
        (batch, actions), purchase probability (batch,), and with reasons the contributions (batch, candidates, width).
        """
        rows, scores, next_actions, purchase, *reasons = outputs
        items_by_row = self._items_by_row
        # A foreign graph may return a row beyond the list for a session that no trial has run.
        is_item = (rows >= 1) & (rows < len(items_by_row)) & np.isfinite(scores)  # (batch, candidates)
        all_are_items = bool(is_item.all())
        for session, candidates, values, probabilities, purchase_probability, explained, mask in zip(
            sessions,
            rows.tolist(),
            _rounded(scores),
            _rounded(next_actions),
            _rounded(purchase),
            _reasons(sessions, reasons[0]) if reasons else repeat(None, len(sessions)),
            is_item,
            strict=True,
        ):
            has_candidates = not self._every_event or max(session.rows) > 0
            result = Scores(
                candidates if has_candidates else [],
                values if has_candidates else [],
                dict(zip(NEXT_ACTIONS, probabilities, strict=True)) if self._has_actions else None,
                purchase_probability if self._has_purchase else None,
                items_by_row,
                explained,
                self._row_of,
            )
            yield result if all_are_items else _keep_candidates(result, mask)


def _reasons(sessions: Sequence[ModelInput], contributions: np.ndarray) -> list[Reasons]:
    """Return the reasons of each session of a micro-batch.

    Args:
        sessions: The sessions.
        contributions: (batch, candidates, width).
    """
    ranked = rank_events(contributions[:, :RANKED], np.array([len(session.rows) for session in sessions]))
    return [Reasons(*part) for part in zip(contributions, [s.positions for s in sessions], ranked, strict=True)]


def _keep_candidates(scores: Scores, mask: np.ndarray) -> Scores:
    """Return scores with the candidates of a mask alone: (candidates,)."""
    reasons = scores.reasons
    return scores._replace(
        rows=list(compress(scores.rows, mask)),
        scores=list(compress(scores.scores, mask)),
        reasons=reasons._replace(contributions=reasons.contributions[mask], ranked=None) if reasons else None,
    )


def _padding_worth_a_call(items: int) -> int:
    """Return the number of padded events with the cost of a call. A call reads the whole item table.

    Measured at 50,000 items of 64 dimensions: a call takes 1 ms, a padded event 5 us. With a few hundred items a call
    costs little more than the events.
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
    """Return values as Python floats with `SCORE_DECIMALS` decimals, for decisions."""
    return np.round(values.astype(np.float64), SCORE_DECIMALS).tolist()
