"""Graph trial: run a bundle's graph on sessions that reach the ends of its tables, and name what it cannot score.

A declared shape says little about a graph: an embedding may have fewer rows than the item list, a position table may
be shorter than `max_length`, and an axis may be fixed although its declaration is dynamic. So the trial runs sessions
with the first and the last item, every action, the longest session, and every padded length of a worker.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from clickscore.schemas.errors import ClickscoreError
from clickscore.schemas.events import ACTIONS
from clickscore.schemas.manifest import EXPLAINED, NEXT_ACTIONS, OUTPUTS, REASONS, padded_widths

SILENT = 4
"""ONNX Runtime's log severity for fatal errors alone: the trial reports the failure of a node in its own words."""
LONGEST_AGE = 1_000_000_000
"""Age of the last event of the trial's oldest session, ms: 11 days, longer than sessions last."""
BATCH = 64
"""Sessions in a run over all items, as many as a worker scores at once by default."""
MAX_SINGLE_ITEMS = 4096
"""Items that are also the only event of a session, spread over the list: 64 runs, each over the whole catalogue."""
SUM_TOLERANCE = 1e-3
"""Accepted distance from 1 of the sum of the action probabilities: float16 has three digits."""
REASON_LENGTH = 250
"""Characters of ONNX Runtime's message in a problem."""

Arrays = Mapping[str, npt.NDArray[np.generic]]


class ServingLimits(NamedTuple):
    """What a manifest promises about a graph."""

    items: int
    """Number of items."""
    max_length: int
    """Largest number of events of a session."""
    candidates: int
    """Number of returned items for a session."""
    every_event: bool = False
    """Whether the graph also reads searches (row 0) and unknown items (rows below 0)."""


class GraphTrialError(ClickscoreError):
    """A run that a worker could not use; the text is the problem."""


def find_problem(graph: ort.InferenceSession, limits: ServingLimits, *, every_item: bool = False) -> str:
    """Return the first problem of a graph on the sessions of the trial, in words; an empty text for a good graph.

    Args:
        graph: Graph of a bundle.
        limits: Promises of the manifest.
        every_item: Whether to run each item, too; this takes some seconds for a large catalogue.
    """
    try:
        for sessions, width, describe in _trial_sessions(limits, every_item=every_item):
            _check_run(graph, sessions, width, limits, describe)
    except GraphTrialError as exc:
        return str(exc)
    return ""


def run_sessions(
    graph: ort.InferenceSession,
    sessions: Sequence[npt.NDArray[np.int64]],
    width: int,
    outputs: Sequence[str],
    *,
    actions: Sequence[int] = (1,),
    longest_age: int = 0,
) -> Arrays:
    """Return the outputs of a graph for sessions of item rows.

    Args:
        graph: Graph with inputs of the contract.
        sessions: Item rows of each session.
        width: Padded length.
        outputs: Names of the outputs.
        actions: Action codes of the events, repeated from the first on.
        longest_age: Age of the last event of the longest session, ms; 0 for one second between events.
    """
    items = np.array([np.pad(rows, (0, width - len(rows))) for rows in sessions], dtype=np.int64)  # (batch, width)
    is_event = np.arange(width) < np.array([len(rows) for rows in sessions])[:, None]
    ages = np.linspace(0, longest_age, width).astype(np.int64) if longest_age else np.arange(width) * 1000
    feeds = {
        "items": items,
        "actions": np.where(is_event, np.resize(np.array(actions, dtype=np.int64), width), 0),
        "ages": np.where(is_event, ages, 0),
        "lengths": np.array([len(rows) for rows in sessions], dtype=np.int64),
    }
    inputs = {node.name for node in graph.get_inputs()}
    options = ort.RunOptions()
    options.log_severity_level = SILENT
    chosen = {name: value for name, value in feeds.items() if name in inputs}
    values = graph.run(list(outputs), chosen | _explained(graph, outputs), options)
    return {name: np.asarray(value) for name, value in zip(outputs, values, strict=True)}


def shorten(error: Exception) -> str:
    """Return the first line of an error of ONNX Runtime, without the codes in front of it."""
    line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return line.removeprefix("[ONNXRuntimeError] : ").rpartition("Status Message: ")[2][:REASON_LENGTH]


def _trial_sessions(
    limits: ServingLimits, *, every_item: bool
) -> Iterator[tuple[list[npt.NDArray[np.int64]], int, Callable[[str], str]]]:
    """Yield sessions, their padded length, and a function that puts the reason of a failure into a sentence.

    The sessions grow from the simplest to the largest, so the first failure is the cause.
    """
    items, longest = limits.items, limits.max_length
    first = np.ones(1, dtype=np.int64)
    yield [first], 1, lambda reason: f"the graph cannot score a session of one event: {reason}"
    yield (
        [first, first],
        1,
        lambda reason: f"the graph cannot score two sessions at once, so its batch axis must be dynamic: {reason}",
    )
    yield (
        [np.ones(longest, dtype=np.int64)],
        longest,
        lambda reason: f"the graph cannot read a session of {longest} events, which is its max_length: {reason}",
    )
    yield (
        [np.array([items])],
        1,
        lambda reason: (
            f"the graph cannot read row {items}, the last item of the list; the list must name as many items as the "
            f"graph's table has rows behind the padding: {reason}"
        ),
    )
    for width in padded_widths(longest):
        spread = np.linspace(1, items, width).astype(np.int64)
        sessions = [spread, spread[::-1][: max(width - 1, 1)], np.array([items]), first]
        yield (
            sessions,
            width,
            lambda reason, width=width: f"the graph cannot score sessions padded to {width}: {reason}",
        )
    if limits.every_event:
        unknown = [np.array([0]), np.array([-1]), np.array([-1, 0, items][:longest])]
        yield unknown, min(3, longest), lambda reason: f"the graph cannot read searches and unknown items: {reason}"
    if every_item:
        singles = np.unique(np.linspace(1, items, min(items, MAX_SINGLE_ITEMS)).astype(np.int64))
        for sessions, width in (
            (np.array_split(singles, len(singles)), 1),
            (np.array_split(np.arange(1, items + 1), -(-items // longest)), longest),
        ):
            for start in range(0, len(sessions), BATCH):
                yield (
                    list(sessions[start : start + BATCH]),
                    width,
                    lambda reason: f"the graph cannot score every item of the list: {reason}",
                )


def _check_run(
    graph: ort.InferenceSession,
    sessions: Sequence[npt.NDArray[np.int64]],
    width: int,
    limits: ServingLimits,
    describe: Callable[[str], str],
) -> None:
    """Run sessions with views, then with every action and old events, and check the outputs."""
    outputs = [*OUTPUTS, *(node.name for node in graph.get_outputs() if node.name == REASONS)]
    for actions, age, extra in (
        ((1,), 0, ""),
        (range(1, len(ACTIONS)), 0, f"with action codes up to {len(ACTIONS) - 1}, "),
        ((1,), LONGEST_AGE, f"with ages up to {LONGEST_AGE} ms, "),
    ):
        try:
            values = run_sessions(graph, sessions, width, outputs, actions=actions, longest_age=age)
        except Exception as exc:  # ONNX Runtime's exceptions share no base class that it exports
            raise GraphTrialError(describe(extra + shorten(exc))) from exc
        if problem := _find_wrong_output(values, sessions, width, limits):
            raise GraphTrialError(describe(extra + problem))


def _find_wrong_output(
    values: Arrays, sessions: Sequence[npt.NDArray[np.int64]], width: int, limits: ServingLimits
) -> str:
    """Return what is wrong about the outputs of a run; an empty text for good ones."""
    batch, candidates = len(sessions), limits.candidates
    shapes = {
        "rows": (batch, candidates),
        "scores": (batch, candidates),
        "action_probabilities": (batch, len(NEXT_ACTIONS)),
        "purchase": (batch,),
        REASONS: (batch, candidates, width),
    }
    if wrong := [name for name, value in values.items() if value.shape != shapes[name]]:
        name = wrong[0]
        return f"{name} has the shape {values[name].shape}, not {shapes[name]}"
    if not_finite := [name for name, value in values.items() if not np.isfinite(value.astype(np.float64)).all()]:
        return f"{not_finite[0]} is not finite"
    # Without a known item the candidates mean nothing, and a worker does not read them.
    has_item = np.array([rows.max() > 0 for rows in sessions])
    rows, scores = values["rows"][has_item].astype(np.int64), values["scores"][has_item].astype(np.float64)
    actions, purchase = (values[name].astype(np.float64) for name in ("action_probabilities", "purchase"))
    checks = (
        (
            rows.size and (rows.min() < 1 or rows.max() > limits.items),
            lambda: f"rows run from {rows.min()} to {rows.max()}, not from 1 to {limits.items}",
        ),
        ((np.diff(np.sort(rows)) == 0).any(), lambda: "rows name an item twice"),
        ((np.diff(scores) > 0).any(), lambda: "scores are not in order, the best first"),
        (
            actions.min() < 0 or not np.allclose(actions.sum(axis=1), 1, atol=SUM_TOLERANCE),
            lambda: "action_probabilities do not sum to 1",
        ),
        (purchase.min() < 0 or purchase.max() > 1, lambda: "purchase is no probability"),
    )
    return next((describe() for is_wrong, describe in checks if is_wrong), "")


def _explained(graph: ort.InferenceSession, outputs: Sequence[str]) -> dict[str, npt.NDArray[np.int64]]:
    """Return the optional input that requests reasons for all candidates, where the outputs have reasons."""
    if REASONS not in outputs:
        return {}
    (candidates,) = (node.shape[1] for node in graph.get_outputs() if node.name == "rows")
    return {EXPLAINED: np.array([candidates], dtype=np.int64)}
