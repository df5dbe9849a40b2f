"""Fidelity: how near a quicker graph comes to the exact one, asked the same beginnings of sessions."""

import numpy as np
import onnxruntime as ort

from clickscore.export.probes import BATCH, batch_invariant, run_with_reasons, stratified_sample, with_unknown_events
from clickscore.model.errors import TrainingError
from clickscore.model.features import NO_NEXT_ITEM, Examples, pad_prefixes
from clickscore.model.metrics import hit_rate, reciprocal_rank
from clickscore.model.onnx_runtime import run_graph
from clickscore.schemas.manifest import Fidelity

BEST = 20
MOST = 10_000


def measure_fidelity(
    quick: ort.InferenceSession, exact: ort.InferenceSession, of: Examples, *, every_event: bool, most: int = MOST
) -> Fidelity:
    """Return how near the quick graph comes on beginnings of sessions, at most about `most` of them, of all lengths.

    Raises:
        TrainingError: The quick graph gives a session other bits alone than in company.
    """
    shares: list[np.ndarray] = []
    places: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for at in stratified_sample(of, most, BATCH):
        batch = pad_prefixes(of, at)
        asked = with_unknown_events(batch) if every_event else batch
        answers = run_with_reasons(quick, asked)
        if not all(batch_invariant(quick, asked, answers, one) for one in range(0, len(at), 8)):
            message = "the quicker graph gives a session other bits alone than in company, so no bundle was written"
            raise TrainingError(message)
        found, best = answers[0][:, :BEST], run_graph(exact, asked)[0][:, :BEST]  # (batch, 20) each
        shares.append((best[:, :, None] == found[:, None]).any(axis=2).mean(axis=1))
        wanted = of.next_item[at][:, None]  # (batch, 1)
        for place, rows in zip(places, (found, best), strict=True):
            hit = rows == wanted
            place.append(np.where(hit.any(axis=1), hit.argmax(axis=1) + 1, 0)[wanted[:, 0] != NO_NEXT_ITEM])
    of_quick, of_exact = (np.concatenate(place) for place in places)
    return Fidelity(
        beginnings=sum(map(len, shares)),
        overlap=round(float(np.concatenate(shares).mean()), 6),
        hr=round(hit_rate(of_quick, BEST) - hit_rate(of_exact, BEST), 6),
        mrr=round(reciprocal_rank(of_quick, BEST) - reciprocal_rank(of_exact, BEST), 6),
    )
