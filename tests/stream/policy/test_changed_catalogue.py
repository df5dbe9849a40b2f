"""Changed catalogue: a bundle on a catalogue in which 30 % of its items are gone and 30 % are new keeps full lists."""

import random
from collections import Counter

import pytest

from clickscore.schemas.catalogue import Item
from clickscore.stream.policy.policy_file import DEFAULT_POLICY
from clickscore.stream.policy.recommend import Policy
from clickscore.stream.scoring.bundle import load_bundle
from clickscore.stream.scoring.scorer import Scorer
from clickscore.stream.settings import PolicySettings
from tests.bundles import small_bundle
from tests.scored_requests import make_catalogue, make_request

CHANGED = 0.3
K = 10


@pytest.fixture(scope="module")
def decisions(tmp_path_factory: pytest.TempPathFactory):
    """Return the decisions on random sessions of the items that the shop has now, and the items of the bundle."""
    rng, bundle = random.Random(0), load_bundle(small_bundle(tmp_path_factory.mktemp("bundle") / "bundle"))
    scorer, known = Scorer(bundle), list(bundle.items)
    gone = set(rng.sample(known, round(CHANGED * len(known))))
    present = [item for item in known if item not in gone] + [f"new-{number}" for number in range(len(gone))]
    kinds = [(category, brand) for category in ("tea", "mugs") for brand in ("lumi", "fjord")]
    listed = [
        Item(item_id=item, category=category, brand=brand, price=rng.randint(5, 50))
        for item, (category, brand) in zip(present, rng.choices(kinds, k=len(present)), strict=True)
    ]
    catalogue = make_catalogue(*listed)
    for item in gone:
        assert catalogue.update_item(item.encode(), None) is None
    policy = Policy(DEFAULT_POLICY, scorer.version, scorer.popular, PolicySettings(k=K), known_items=scorer.known_items)
    requests = [
        make_request(*rng.choices(present, k=rng.randint(1, 5)), popular=tuple(rng.sample(present, 20)))
        for _ in range(300)
    ]
    scores = scorer.score(requests)
    return [
        policy.recommend(request, result, catalogue) for request, result in zip(requests, scores, strict=True)
    ], gone


def test_lists_are_full(decisions):
    made, _ = decisions
    assert {len(decision.items) for decision in made} == {K}


def test_items_that_are_gone_are_never_shown(decisions):
    made, gone = decisions
    assert not {choice.item_id for decision in made for choice in decision.items} & gone


def test_share_by_source_is_counted(decisions):
    """New items are current in 30 % of the sessions, and items like them take half of the places there."""
    made, _ = decisions
    counts = Counter(choice.reason for decision in made for choice in decision.items)
    assert set(counts) <= {"model", "similar", "popular"}
    assert counts["similar"] == pytest.approx(CHANGED * len(made) * K / 2, rel=0.3)
    assert counts["model"] > counts["popular"]
