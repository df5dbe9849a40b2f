import random

import numpy as np
import pytest

from clickscore.model.bundle_heads import run_heads
from clickscore.model.level import correct_level, fit_level
from clickscore.model.metrics import log_loss
from clickscore.model.onnx_runtime import open_graph
from clickscore.model.packaged_bundle import resolve_folder
from clickscore.model.prefix_features import NO_ATTRIBUTES, make_full_sessions, make_item_attributes, mark_purchased
from clickscore.model.refit import ACTION_HEAD, PURCHASE_HEAD, fit_refit
from clickscore.schemas.manifest import decode_manifest
from tests.model.builders import flat

pytestmark = pytest.mark.train

UNKNOWN = np.zeros(8, dtype=np.int64)


@pytest.fixture(scope="module")
def demo():
    folder = resolve_folder("demo")
    manifest = decode_manifest((folder / "manifest.json").read_bytes())
    return open_graph(folder / "model.onnx"), manifest


@pytest.fixture(scope="module")
def facts(demo):
    return make_item_attributes([f"item-{number}" for number in range(demo[1].items)], NO_ATTRIBUTES)


def strangers(count: int, seed: int) -> list[str]:
    """Return sessions of a shop where a favourite comes before most purchases, and carts are left."""
    rng = random.Random(seed)
    sessions: list[str] = []
    for _ in range(count):
        habit = "favourite:b view:c purchase:b" if rng.random() < 0.3 else "cart:b view:c view:d"
        sessions.append(f"view:a view:b {habit}" if rng.random() < 0.9 else "view:a view:b favourite:b view:c view:d")
    return sessions


def test_heads_learn_the_habits_of_a_shop_that_the_bundle_does_not_know(demo, facts):
    graph, manifest = demo
    first, later = flat(strangers(200, 0)), make_full_sessions(flat(strangers(200, 1)), UNKNOWN)
    refit = fit_refit(graph, manifest, first, UNKNOWN, facts)
    assert refit is not None
    assert refit.report.heads == (ACTION_HEAD, PURCHASE_HEAD)
    assert refit.report.after["purchase_log_loss"] < refit.report.before["purchase_log_loss"]
    ends = np.flatnonzero(~mark_purchased(later))
    _, predicted = run_heads(graph, manifest, later, ends)
    level = correct_level(predicted, fit_level(graph, manifest, make_full_sessions(first, UNKNOWN)))
    refitted = refit.replace(level, refit.stack.logits_after(later, ends, manifest.max_length))
    for old, new, labels in zip(level, refitted, (later.next_action[ends], later.purchase[ends]), strict=True):
        assert log_loss(new, labels) < log_loss(old, labels) - 0.05


def test_few_sessions_replace_nothing(demo, facts):
    assert fit_refit(*demo, flat(strangers(140, 0)), UNKNOWN, facts) is None


def test_outcome_by_chance_replaces_nothing(demo, facts):
    rng = random.Random(0)
    sessions = [f"view:a view:b{' purchase:b' * (rng.random() < 0.3)}" for _ in range(200)]
    refit = fit_refit(*demo, flat(sessions), UNKNOWN, facts)
    assert refit is None or PURCHASE_HEAD not in refit.report.heads


def test_outcome_that_never_came_is_not_learned_as_impossible(demo, facts):
    sessions = ["view:a view:b cart:b view:c", "view:c search", "view:d"] * 60
    refit = fit_refit(*demo, flat(sessions), UNKNOWN, facts)
    assert refit is not None
    assert refit.report.heads == (ACTION_HEAD,)
