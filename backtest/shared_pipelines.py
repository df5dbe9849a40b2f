"""Shared pipelines: run all arms over the log at once, where arms with equal sessions and scores share the work.

Arms with the same session settings, catalogue and campaigns share one pipeline and its requests. Among these, arms with
the same bundle or baseline share its scores. Each arm has a policy of its own.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from clickscore.backtest.arms import Arm
from clickscore.backtest.recommenders import Recommender
from clickscore.backtest.session_repeats import with_repeats, without_repeats
from clickscore.schemas.decisions import Recommendation
from clickscore.stream.pipeline import Pipeline
from clickscore.stream.pipeline_records import Message, Output
from clickscore.stream.policy.experiments import CONTROL, assign_variant
from clickscore.stream.policy.policy_file import PolicyFile
from clickscore.stream.policy.recommend import Policy
from clickscore.stream.policy.shelves import main_policy
from clickscore.stream.reference.catalogue import Catalogue
from clickscore.stream.reference.catalogue_history import AnyCatalogue
from clickscore.stream.replay.reference_files import NO_FILES, ReferenceFiles
from clickscore.stream.replay.reference_log import ReferenceLog, start_pipeline
from clickscore.stream.replay.source import Batches, HandoverSlot, handover_batches
from clickscore.stream.request import Request, Scores
from clickscore.stream.settings import SessionSettings, Settings

MakeRecommender = Callable[[Arm], Recommender]
"""Makes a new recommender for an arm."""

MakePolicy = Callable[[Arm, PolicyFile], Policy]
"""Makes a policy for an arm, from the arm's policy file with or without repeats of the session."""


class ArmDecisions(NamedTuple):
    """A request and the recommendation of each arm."""

    request: Request
    is_judged: bool
    """False for a warm-up event."""
    recommendations: list[Recommendation]
    """Recommendation of each arm, in the arms' order; empty where the event is not judged, or where an arm's own
    sessions take the event for a repeat. Items of the session may be repeated."""
    discoveries: list[Recommendation]
    """Recommendation of each arm without any item of the session, for the events whose next item is new."""


class ArmPolicy(NamedTuple):
    """An arm with its policy, once with and once without repeats of the session."""

    arm: Arm
    repeating: Policy
    discovering: Policy

    def decide(
        self, request: Request, scores: Scores | None, catalogue: AnyCatalogue
    ) -> tuple[Recommendation, Recommendation]:
        """Return the recommendations of a worker with the arm's settings, with and without repeats of the session.

        A page with shelves is judged by its main shelf.

        Args:
            request: The event, with the user's session.
            scores: Output of the arm's recommender.
            catalogue: Stock and hidden items when the event came.
        """
        settings = self.arm.settings.policy
        variant = assign_variant(request.event.user_id, settings.experiment, settings.control_share)
        if variant != request.variant:
            request = msgspec.structs.replace(request, variant=variant)
        scores = scores if variant != CONTROL else None
        return (
            main_policy(self.repeating, request).recommend(request, scores, catalogue),
            main_policy(self.discovering, request).recommend(request, scores, catalogue),
        )


class SharedPipeline:
    """Arms with the same sessions and reference data: one pipeline, a recommender per bundle, a policy per arm."""

    def __init__(
        self,
        settings: Settings,
        arms: Sequence[tuple[int, Arm]],
        topic: str,
        reference: ReferenceLog,
        partitions: int,
        *,
        make_recommender: MakeRecommender,
        make_policy: MakePolicy,
    ) -> None:
        """Start without partitions.

        Args:
            settings: Settings of the sessions.
            arms: Number and description of each arm; empty where only the sessions are needed.
            topic: Topic name in the decision ids.
            reference: Catalogue and campaigns.
            partitions: Number of partitions of the log.
            make_recommender: Makes a recommender for an arm.
            make_policy: Makes a policy for an arm.
        """
        self.arm_numbers = [number for number, _ in arms]
        self._pipeline = Pipeline(settings.sessions, settings.policy, topic, Catalogue())
        start_pipeline(self._pipeline, reference, range(partitions), {})
        self._policies = [
            ArmPolicy(
                arm,
                make_policy(arm, with_repeats(arm.policy_file)),
                make_policy(arm, without_repeats(arm.policy_file)),
            )
            for _, arm in arms
        ]
        self._handovers: list[Message] = []
        self._recommenders = {arm.recommender_key: make_recommender(arm) for _, arm in reversed(arms)}

    def decide(self, batches: Batches, judge_from: int | None) -> tuple[list[Output], list[ArmDecisions]]:
        """Process a batch of records; return the pipeline's outputs and the decisions in the order of the log.

        Args:
            batches: Next records of each partition.
            judge_from: Event time of the first judged events, ms; None where all records only warm up.
        """
        outputs, requests, catalogues = self._pipeline.collect_requests(batches)
        self._handovers += [message for output in outputs for message in output.handovers]
        is_judged = [judge_from is not None and request.event.ts >= judge_from for request in requests]
        scores = {key: recommender.rank(requests, is_judged) for key, recommender in self._recommenders.items()}
        ranked = [(policy, scores[policy.arm.recommender_key]) for policy in self._policies]
        decisions: list[ArmDecisions] = []
        for row, (request, judge, catalogue) in enumerate(zip(requests, is_judged, catalogues, strict=True)):
            pairs = [policy.decide(request, ranking[row], catalogue) for policy, ranking in ranked if judge]
            decisions.append(ArmDecisions(request, judge, [pair[0] for pair in pairs], [pair[1] for pair in pairs]))
        return outputs, decisions

    def deliver(self, slot: HandoverSlot | None) -> list[Output]:
        """Process the hand-over of the records since the last call; return the pipeline's outputs.

        Args:
            slot: Position of the hand-over; None where the log has its hand-overs already.
        """
        batches = handover_batches(slot, self._handovers)
        self._handovers.clear()
        return self._pipeline.advance_all(batches)


class SharedPipelines:
    """All arms of a backtest, and the sessions that labels come from."""

    def __init__(
        self,
        base: Settings,
        arms: Sequence[Arm],
        topic: str,
        references: Mapping[ReferenceFiles, ReferenceLog],
        partitions: int,
        *,
        make_recommender: MakeRecommender,
        make_policy: MakePolicy,
    ) -> None:
        """Start at the beginning of a log.

        Args:
            base: Common settings; labels come from their sessions.
            arms: Arms of the backtest.
            topic: Topic name in the decision ids.
            references: Catalogue and campaigns by the files of arms; those that all arms share, under no files.
            partitions: Number of partitions of the log.
            make_recommender: Makes a recommender for an arm.
            make_policy: Makes a policy for an arm.
        """
        # The first pipeline has the common sessions, whether an arm uses them or not.
        shared: dict[tuple[SessionSettings, ReferenceFiles], list[tuple[int, Arm]]] = {(base.sessions, NO_FILES): []}
        for number, arm in enumerate(arms):
            shared.setdefault((arm.settings.sessions, arm.reference), []).append((number, arm))
        self._pipelines = [
            SharedPipeline(
                group[0][1].settings if group else base,
                group,
                topic,
                references[files],
                partitions,
                make_recommender=make_recommender,
                make_policy=make_policy,
            )
            for (_, files), group in shared.items()
        ]
        self._arm_count = len(arms)

    def __len__(self) -> int:
        """Return the number of pipelines."""
        return len(self._pipelines)

    def decide(self, batches: Batches, judge_from: int | None) -> tuple[list[Output], list[ArmDecisions]]:
        """Process a batch of records; return the outputs of the common sessions and the decisions of all arms.

        The requests are those of the common sessions. An event has no recommendations where an arm's own sessions take
        the event for a repeat.

        Args:
            batches: Next records of each partition.
            judge_from: Event time of the first judged events, ms; None where all records only warm up.
        """
        results = [pipeline.decide(batches, judge_from) for pipeline in self._pipelines]
        outputs, decisions = results[0]
        if len(results) == 1:
            return outputs, decisions
        by_decision: dict[str, dict[int, tuple[Recommendation, Recommendation]]] = {
            decision.request.decision_id: {} for decision in decisions
        }
        for pipeline, (_, pipeline_decisions) in zip(self._pipelines, results, strict=True):
            for decision in pipeline_decisions:
                if (by_arm := by_decision.get(decision.request.decision_id)) is not None:
                    pairs = zip(decision.recommendations, decision.discoveries, strict=True)
                    by_arm.update(zip(pipeline.arm_numbers, pairs, strict=False))
        return outputs, [self._merge(decision, by_decision[decision.request.decision_id]) for decision in decisions]

    def deliver(self, slot: HandoverSlot | None) -> list[Output]:
        """Process the hand-over of the records since the last call; return the outputs of the common sessions."""
        outputs, *_ = [pipeline.deliver(slot) for pipeline in self._pipelines]
        return outputs

    def _merge(self, decision: ArmDecisions, by_arm: dict[int, tuple[Recommendation, Recommendation]]) -> ArmDecisions:
        is_complete = len(by_arm) == self._arm_count
        pairs = [by_arm[arm] for arm in range(self._arm_count)] if is_complete else []
        return decision._replace(
            recommendations=[repeating for repeating, _ in pairs],
            discoveries=[discovering for _, discovering in pairs],
        )
