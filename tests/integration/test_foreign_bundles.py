"""Foreign bundles: models of other frameworks, adopted, behind the worker that serves ours."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from clickscore.export.import_onnx import import_bundle
from clickscore.schemas.decisions import Recommendation, decode_decision
from clickscore.schemas.events import View, encode_event
from clickscore.schemas.topics import RECOMMENDATIONS
from tests.export.other_frameworks import (
    ITEMS,
    LENGTH,
    Foreign,
    keras_graph,
    next_item_graph,
    tensorflow_graph,
    transformers_graph,
)
from tests.integration.event_log import BEGAN, Sent
from tests.integration.live import installation

pytestmark = [pytest.mark.kafka, pytest.mark.train, pytest.mark.filterwarnings("ignore")]


@pytest.mark.parametrize("make", [keras_graph, transformers_graph, tensorflow_graph, next_item_graph])
def test_worker_recommends_what_another_frameworks_model_learned(
    broker: str, tmp_path: Path, make: Callable[[], Foreign]
) -> None:
    foreign = make()
    (tmp_path / "model.onnx").write_bytes(foreign.model)
    (tmp_path / "items.txt").write_text("".join(f"{item}\n" for item in ITEMS))
    manifest, _ = import_bundle(
        tmp_path / "model.onnx",
        tmp_path / "items.txt",
        tmp_path / "bundle",
        names=foreign.names,
        candidates=20,
        max_length=LENGTH,
        framework=foreign.framework,
    )
    views = [
        View(event_id=f"e-{user}-{at}", user_id=f"u{user}", ts=BEGAN + 1_000 * at, item_id=ITEMS[user + at])
        for user in range(20)
        for at in range(3)
    ]
    with installation(broker, tmp_path, bundle=str(tmp_path / "bundle")) as live:
        live.start_worker()
        live.produce(Sent(encode_event(view), view.user_id.encode()) for view in views)
        live.wait_finished()
        decided = [
            decode_decision(record.value) for records in live.read(RECOMMENDATIONS).values() for record in records
        ]
    following = dict(pairwise(ITEMS))
    expected = {view.event_id: following[view.item_id] for view in views}
    first_items = {
        decision.event_id: decision.items[0].item_id for decision in decided if isinstance(decision, Recommendation)
    }
    assert first_items == expected
    assert {decision.bundle for decision in decided} == {manifest.version}
    is_pure = make is next_item_graph
    absent = {
        (decision.actions is None, decision.purchase is None)
        for decision in decided
        if isinstance(decision, Recommendation)
    }
    assert absent == {(is_pure, is_pure)}
