"""Groups: arms whose sessions are the same move through the log together, and score once what they score alike."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from clickscore.backtest.arms import Arm
from clickscore.backtest.recommenders import Recommender
from clickscore.schemas.decisions import Recommendation
from clickscore.stream.pipeline import Output, Pipeline
from clickscore.stream.policy.experiments import CONTROL, assign_variant
from clickscore.stream.policy.recommend import Policy
from clickscore.stream.reference.catalogue import Catalogue
from clickscore.stream.replay.source import Batches
from clickscore.stream.request import Request, Scores
from clickscore.stream.settings import SessionSettings, Settings

Recommenders = Callable[[Arm], Recommender]
"""Makes a new recommender for an arm."""

Policies = Callable[[Arm, Catalogue], Policy]
"""Makes a policy for an arm."""


class ArmDecisions(NamedTuple):
    """A request, and what each arm decides on it."""

    request: Request
    due: bool
    recommendations: list[Recommendation]
    """Of each arm, in their order; empty where it is not due, or where not every arm decides on it."""


class ArmPolicy(NamedTuple):
    """An arm and its policy."""

    arm: Arm
    policy: Policy

    def decide(self, request: Request, answer: Scores | None) -> Recommendation:
        """Return what a worker with the arm's settings would."""
        of = self.arm.settings.policy
        variant = assign_variant(request.event.user_id, of.experiment, of.control_share)
        if variant != request.variant:
            request = msgspec.structs.replace(request, variant=variant)
        return self.policy.recommend(request, answer if variant != CONTROL else None)


class SharedPipeline:
    """Arms of the same requests: one pipeline for all, one recommender for those that rank alike, a policy each."""

    def __init__(
        self,
        settings: Settings,
        arms: Sequence[tuple[int, Arm]],
        topic: str,
        catalogue: Catalogue,
        *,
        recommenders: Recommenders,
        policies: Policies,
    ) -> None:
        """Begin with no partition.

        Args:
            settings: Of the sessions.
            arms: With their numbers; there may be none, where the sessions alone are wanted.
            topic: The name that decision ids carry.
            catalogue: Stock and flags.
            recommenders: Makes a recommender.
            policies: Makes a policy.
        """
        self.arms = [number for number, _ in arms]
        self._pipeline = Pipeline(settings.sessions, settings.policy, topic, catalogue)
        self._sides = [ArmPolicy(arm, policies(arm, catalogue)) for _, arm in arms]
        self._recommenders = {arm.recommender: recommenders(arm) for _, arm in reversed(arms)}

    def take(self, batches: Batches, due_from: int | None) -> tuple[list[Output], list[ArmDecisions]]:
        """Move the sessions on and decide; return what becomes of the records, and the decisions in order.

        Args:
            batches: The next records.
            due_from: Event time from which on events get decisions, ms; none for no decisions at all.
        """
        outputs, requests = self._pipeline.collect_requests(batches)
        due = [due_from is not None and request.event.ts >= due_from for request in requests]
        answers = {name: ranks.answer(requests, due) for name, ranks in self._recommenders.items()}
        ranked = [(side, answers[side.arm.recommender]) for side in self._sides]
        decided = [
            ArmDecisions(request, is_due, [side.decide(request, answer[at]) for side, answer in ranked if is_due])
            for at, (request, is_due) in enumerate(zip(requests, due, strict=True))
        ]
        return outputs, decided


class SharedPipelines:
    """All arms of a backtest, and the sessions by which they are judged."""

    def __init__(
        self,
        base: Settings,
        arms: Sequence[Arm],
        topic: str,
        catalogue: Catalogue,
        *,
        recommenders: Recommenders,
        policies: Policies,
    ) -> None:
        """Begin at the start of a log; the sessions of `base` are those that answers come from."""
        yardstick = Arm(name="", settings=base)
        by_requests: dict[SessionSettings, list[tuple[int, Arm]]] = {yardstick.requests: []}
        for number, arm in enumerate(arms):
            by_requests.setdefault(arm.requests, []).append((number, arm))
        self._groups = [
            SharedPipeline(
                of[0][1].settings if of else base,
                of,
                topic,
                catalogue,
                recommenders=recommenders,
                policies=policies,
            )
            for of in by_requests.values()
        ]
        self._arms = len(arms)

    def __len__(self) -> int:
        """Return how many groups there are."""
        return len(self._groups)

    def take(self, batches: Batches, due_from: int | None) -> tuple[list[Output], list[ArmDecisions]]:
        """Move all pipelines on: return the outputs of the sessions of `base`, and the decisions of all arms.

        The requests are those of `base`: an event that is a repeat in an arm's own sessions has no decision of it.
        """
        taken = [group.take(batches, due_from) for group in self._groups]
        outputs, decided = taken[0]
        if len(taken) == 1:
            return outputs, decided
        of_request: dict[str, dict[int, Recommendation]] = {one.request.decision_id: {} for one in decided}
        for group, (_, found) in zip(self._groups, taken, strict=True):
            for one in found:
                if one.request.decision_id in of_request:
                    of_request[one.request.decision_id].update(zip(group.arms, one.recommendations, strict=False))
        return outputs, [self._merged(one, of_request[one.request.decision_id]) for one in decided]

    def _merged(self, one: ArmDecisions, by_arm: dict[int, Recommendation]) -> ArmDecisions:
        whole = len(by_arm) == self._arms
        return ArmDecisions(one.request, one.due, [by_arm[arm] for arm in range(self._arms)] if whole else [])
