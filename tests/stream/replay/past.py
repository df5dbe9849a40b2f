"""Past decisions for tests: a partition's log with epochs, decided by the pipeline of a worker."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import msgspec
from msgspec.structs import replace

from clickscore.schemas.catalogue import Campaign, Item, encode
from clickscore.schemas.events import Epoch
from clickscore.schemas.explanations import Explanation
from clickscore.schemas.topics import CAMPAIGNS, CATALOGUE, EVENTS
from clickscore.stream.decision_ids import parse_decision_id
from clickscore.stream.pipeline import Pipeline
from clickscore.stream.pipeline_records import Record
from clickscore.stream.policy.policy_file import load_policy
from clickscore.stream.reference.catalogue import Catalogue
from clickscore.stream.replay.explain import open_explainer
from clickscore.stream.replay.published_decisions import DecisionRecords
from clickscore.stream.replay.recompute import recompute_cases
from clickscore.stream.replay.reference_log import ReferenceLog, ReferenceRecord, start_pipeline
from clickscore.stream.scoring.bundle import load_bundle
from clickscore.stream.scoring.scorer import Scorer
from clickscore.stream.settings import Settings
from tests.events import START, Recorded

SETTINGS = Settings()


def item_record(offset: int, item: Item) -> ReferenceRecord:
    return ReferenceRecord(CATALOGUE.name, offset, item.item_id.encode(), encode(item), START)


def campaign_record(offset: int, campaign: Campaign) -> ReferenceRecord:
    return ReferenceRecord(CAMPAIGNS.name, offset, campaign.campaign_id.encode(), encode(campaign), START)


def epoch_record(number: int, catalogue: int, campaigns: int, **versions: str | None) -> bytes:
    return msgspec.json.encode(Epoch(number=number, catalogue=catalogue, campaigns=campaigns, **versions))


class Past:
    """A partition whose events were decided."""

    def __init__(self, log: Sequence[Recorded], reference: ReferenceLog, settings: Settings = SETTINGS) -> None:
        self.log = log
        self.reference = reference
        self.settings = settings
        self.published = DecisionRecords()

    def decide(
        self, bundle: Path | None = None, policy: str = "default", bundles: Mapping[str, Path] = MappingProxyType({})
    ) -> "Past":
        """Publish the decisions of a worker with a bundle, a policy and bundles for rollouts on the whole log."""
        scorer = Scorer(load_bundle(bundle)) if bundle else None
        loaded = {content_hash: Scorer(load_bundle(folder)) for content_hash, folder in bundles.items()}
        pipeline = self._pipeline(scorer, policy, loaded)
        output = pipeline.process(0, self.log)
        for message in (*output.recommendations, *output.ads):
            value = message.value or b""
            self.published.add(msgspec.json.decode(value)["decision_id"], value)
        return self

    def _pipeline(
        self,
        scorer: Scorer | None = None,
        policy: str = "default",
        bundles: Mapping[str, Scorer] = MappingProxyType({}),
    ) -> Pipeline:
        pipeline = Pipeline(
            self.settings.sessions,
            self.settings.policy,
            EVENTS.name,
            Catalogue(),
            scorer,
            bundles=bundles,
            policy_file=load_policy(policy),
        )
        start_pipeline(pipeline, self.reference, [0], {})
        return pipeline

    def explain(
        self,
        *ids: str,
        bundle: Path | None = None,
        bundles: Sequence[Path] = (),
        store: str = "",
        policies: Sequence[str] = (),
        what_if: Sequence[str] = (),
        missing: Sequence[str] = (),
        batch: int = 7,
    ) -> list[Explanation]:
        """Return the explanations of some decisions, from batches of some records each."""
        decision_ids = [parse_decision_id(text) for text in ids]
        wanted = {0: {decision_id.offset for decision_id in decision_ids}}
        pipeline = self._pipeline()
        scoring = replace(self.settings.scoring, bundle=str(bundle or ""), bundle_store=store)
        settings = replace(self.settings, scoring=scoring)
        with open_explainer(settings, bundles=bundles, policies=policies, what_if=what_if) as explainer:
            records: Sequence[Record] = self.log
            batches = [(0, records[start : start + batch]) for start in range(0, len(records), batch)]
            cases = {case.offset: case for case in recompute_cases(pipeline, batches, wanted)}
            return [
                explainer.explain(decision_id, cases[decision_id.offset], self.published, missing)
                for decision_id in decision_ids
            ]
