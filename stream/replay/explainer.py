"""Explainer: make a past decision again with the bundle and the policy that it names, compare, and take it apart.

A pure function of the case, the published records, and the bundles and policies that can be found.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import msgspec

from clickscore.schemas.catalogue import Campaign
from clickscore.schemas.clients import CLIENT_FIELDS, REASON_FIELDS
from clickscore.schemas.decisions import (
    Ad,
    AnyDecision,
    Because,
    ExclusionCause,
    Recommendation,
    decode_decision,
    encode_decision,
    round_score,
)
from clickscore.schemas.events import ACTIONS, Epoch
from clickscore.schemas.explanations import (
    Alternative,
    CampaignPart,
    CandidatePart,
    Explanation,
    ModelPart,
    RememberedEvent,
    RulePart,
    SessionPart,
    Verdict,
)
from clickscore.schemas.purposes import WITHHELD
from clickscore.stream.deciders import Decider
from clickscore.stream.decision_ids import AD_SUFFIX, DecisionId
from clickscore.stream.policy.ads import open_auction
from clickscore.stream.policy.experiments import CHALLENGER, CONTROL
from clickscore.stream.policy.pages import trace_page
from clickscore.stream.policy.policy_file import PolicyFile
from clickscore.stream.policy.recommend import Policy
from clickscore.stream.policy.shelves import main_policy
from clickscore.stream.reference.catalogue_history import AnyCatalogue
from clickscore.stream.replay.deciding_versions import BundleFinder, DeciderFinder
from clickscore.stream.replay.field_differences import find_differences
from clickscore.stream.replay.published_decisions import DecisionRecords
from clickscore.stream.replay.recompute import DecisionCase
from clickscore.stream.replay.what_if import DecidedItems, describe_changes
from clickscore.stream.request import Request, Scores
from clickscore.stream.scoring.scorer import Scorer

CANDIDATES_SHOWN = 10
"""Number of the model's best candidates in an explanation: as many as a list usually has."""
REASONS_SHOWN = 3
"""Number of session events named as reasons of a candidate."""
ADS_GONE = (
    "the decision on ads is gone, and with it budgets and learned click rates: campaigns bid in full here, and are "
    "clicked as the model expects"
)
"""What is missing without the published decision on ads."""


class _Target(NamedTuple):
    """A decision to explain."""

    decision_id: DecisionId
    request: Request
    catalogue: AnyCatalogue
    epoch: Epoch | None
    decisions: tuple[AnyDecision, ...]
    """Published decisions on the event, the explained one first."""
    value: bytes | None
    """Published record; None without a record."""


class _Made(NamedTuple):
    """A decision that was made again."""

    decider: Decider
    scores: Scores | None
    recommendation: bytes
    ad: bytes | None

    def value(self, target: _Target) -> bytes | None:
        """Return the JSON of the explained decision; None where there is no decision on an ad."""
        return self.ad if target.decision_id.is_ad else self.recommendation


class Explainer:
    """Makes decisions again and explains them."""

    def __init__(
        self,
        finder: DeciderFinder,
        bundles: BundleFinder,
        *,
        settings_hash: str,
        other_policies: Sequence[PolicyFile] = (),
    ) -> None:
        """Build the explainer.

        Args:
            finder: Finds bundle and policy of a decision.
            bundles: Its trial bundles are tried in place of the decision's own.
            settings_hash: Hash of the present settings that decide the output.
            other_policies: Policies to try in place of the decision's own.
        """
        self._finder = finder
        self._bundles = bundles
        self._settings_hash = settings_hash
        self._other_policies = other_policies

    def explain(
        self, decision_id: DecisionId, case: DecisionCase, published: DecisionRecords, missing: Sequence[str]
    ) -> Explanation:
        """Return the explanation of a decision.

        Args:
            decision_id: Id of the decision.
            case: The event, with the state of its partition.
            published: Published records.
            missing: What the topics no longer hold, in words.
        """
        name = str(decision_id)
        if case.request is None or case.catalogue is None:
            return Explanation(decision_id=name, verdict="no decision", problem=case.no_decision, epoch=case.epoch)
        ids = dict.fromkeys((name, case.request.decision_id, case.request.decision_id + AD_SUFFIX))
        values = [published.values[key] for key in ids if key in published.values]
        decisions = tuple(decision for decision in map(_read_decision, values) if decision is not None)
        value = published.values.get(name)
        ad = next((decision for decision in decisions if isinstance(decision, Ad)), None)
        request = case.request if ad is None else _as_published(case.request, ad)
        target = _Target(decision_id, request, case.catalogue, case.epoch, decisions, value)
        context = Explanation(
            decision_id=name,
            verdict="not recomputed",
            approximate=(*missing, *self._other_settings(case.epoch)),
            repeats=published.repeats.get(name, 0),
            event=case.request.event,
            session=_session(case.request),
            epoch=case.epoch,
            published=_raw(value),
            contradiction=_raw(published.contradictions.get(name)),
        )
        return self._complete(context, target)

    def _complete(self, context: Explanation, target: _Target) -> Explanation:
        """Return an explanation with the decision made again, as far as bundle and policy can be found."""
        label, policy_file = self._finder.policy_of(target.epoch, target.decisions)
        if policy_file is None:
            problem = f"its policy {label} is not known: name its file with --policy"
            return msgspec.structs.replace(context, policy=label, problem=problem)
        version = self._finder.missing_bundle(
            target.epoch, target.request.variant, target.decisions, compares=target.value is not None
        )
        if version is not None:
            return msgspec.structs.replace(
                context,
                policy=label,
                bundle=version,
                problem=self._bundles.problems[version],
                what_if=tuple(self._alternatives(target, None, policy_file)),
            )
        made = self._make(target, policy_file)
        policy, value = made.decider.policy, made.value(target)
        verdict, problem = _compare(target, value, context)
        decision = _decode_recommendation(made.recommendation)
        shows_ads = policy.ad_plan.is_in_list or bool(decision.shelves)
        is_gone = made.ad is not None and not any(isinstance(each, Ad) for each in target.decisions)
        if verdict == "different" and shows_ads and is_gone:
            verdict, problem = "not recomputed", ADS_GONE
        return msgspec.structs.replace(
            context,
            approximate=(*context.approximate, ADS_GONE) if is_gone else context.approximate,
            verdict=verdict,
            problem=problem,
            model=_model(target.request, made),
            rules=tuple(_rules(policy, target, made.scores)),
            campaigns=tuple(_campaigns(policy, target, made)),
            items=decision.items,
            shelf=decision.shelf or "",
            shelves=decision.shelves or (),
            ad=_decode_ad(made.ad) if made.ad is not None else None,
            policy=label,
            bundle=made.decider.bundle,
            recomputed=_raw(value),
            differences=tuple(find_differences(target.value or b"", value or b"")) if verdict == "different" else (),
            what_if=tuple(self._alternatives(target, made, policy_file)),
        )

    def _make(self, target: _Target, policy_file: PolicyFile) -> _Made:
        """Return the decision made again; of several possible bundles, with the one that gives the published bytes."""
        deciders = self._finder.candidates(target.epoch, target.request.variant, target.decisions, policy_file)
        first = _decide(target, next(deciders))
        made = first
        while target.value is not None and made.value(target) != target.value:
            decider = next(deciders, None)
            if decider is None:
                return first
            made = _decide(target, decider)
        return made

    def _alternatives(self, target: _Target, made: _Made | None, policy_file: PolicyFile) -> list[Alternative]:
        """Return what the other policies and the trial bundles would have decided.

        Args:
            target: The decision.
            made: The decision made again; None where its bundle cannot be loaded.
            policy_file: Policy of the decision.
        """
        own = made.decider.scorer if made else None
        version = own.version if own else None
        pairs: list[tuple[Scorer | None, PolicyFile]] = []
        if made is not None:
            pairs += [(own, policy) for policy in self._other_policies]
        pairs += [(scorer, policy_file) for scorer in self._bundles.trials if scorer.version != version]
        old = _decided(target, made) if made else _published_items(target)
        return [
            self._alternative(target, old, _decide(target, self._finder.decider(scorer, policy)), (policy_file, policy))
            for scorer, policy in pairs
        ]

    def _alternative(
        self, target: _Target, old: DecidedItems, made: _Made, policies: tuple[PolicyFile, PolicyFile]
    ) -> Alternative:
        new = _decided(target, made)
        return Alternative(
            bundle=made.decider.bundle,
            policy=policies[1].label,
            items=new.items,
            campaign_id=new.campaign_id,
            changes=tuple(describe_changes(old, new, *policies)),
        )

    def _other_settings(self, epoch: Epoch | None) -> list[str]:
        """Return in words that the settings of the decision were others than the present ones, if they were."""
        if epoch is None or epoch.settings in ("", self._settings_hash):
            return []
        return [
            f"the worker had other settings (hash {epoch.settings}) than this command (hash {self._settings_hash}): "
            "give the worker's settings file with --config"
        ]


def _read_decision(value: bytes) -> AnyDecision | None:
    """Return a published decision; None for another record, although it has the id of a decision."""
    try:
        return decode_decision(value)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _decide(target: _Target, decider: Decider) -> _Made:
    """Make a decision."""
    scores = _score(target.request, decider)
    recommendation, ad = decider.decide(target.request, scores, target.catalogue)
    return _Made(decider, scores, recommendation.value, encode_decision(ad) if ad else None)


def _score(request: Request, decider: Decider) -> Scores | None:
    """Return the scores of a request; None without a model, and where a challenger fails, as in a worker."""
    if decider.scorer is None:
        return None
    try:
        return decider.scorer.score([request])[0]
    except Exception:
        if request.variant != CHALLENGER:
            raise
        return None


def _compare(target: _Target, value: bytes | None, context: Explanation) -> tuple[Verdict, str]:
    """Return the verdict on a decision that was made again, and the problem in words, if any.

    Args:
        target: The decision.
        value: Its JSON as made again; None where there is no decision on an ad.
        context: What is known of the published records.
    """
    if context.contradiction is not None:
        return "different", "two different records were published"
    if target.value is None and value is None:
        return "no decision", "no campaign was there, or the policy shows no ads: so there is no decision on an ad"
    if target.value is None:
        return "not published", "no published record was found: the event waits, or retention has deleted the record"
    return ("equal", "") if target.value == value else ("different", "")


def _raw(value: bytes | None) -> msgspec.Raw | None:
    return msgspec.Raw(value) if value is not None else None


def _session(request: Request) -> SessionPart:
    """Return what the decision knew about the user."""
    newest = request.ages[-1] if request.ages else None
    ages: Sequence[int | None] = request.ages or [None] * len(request.items)
    events = tuple(
        RememberedEvent(
            action=ACTIONS[action],
            item_id=item,
            before_ms=None if age is None or newest is None else newest - age,
        )
        for item, action, age in zip(request.items, request.actions, ages, strict=True)
    )
    client, reason = CLIENT_FIELDS[request.client], REASON_FIELDS[request.client]
    return SessionPart(
        session_id=request.session_id,
        length=request.session_length,
        events=events,
        bought=tuple(sorted(request.bought)),
        late=request.late,
        variant=request.variant,
        client=client or "shopper",
        client_reason=reason or "",
        withheld=WITHHELD[request.withheld] or (),
    )


def _model(request: Request, made: _Made) -> ModelPart | None:
    """Return the output of the model; None where no model scored the event."""
    scores, bundle = made.scores, made.decider.bundle
    if scores is None or bundle is None:
        return None
    candidates = tuple(
        CandidatePart(item_id=item, score=score, because=_because(request, scores, index))
        for index, (item, score) in enumerate(islice(scores.candidates(), CANDIDATES_SHOWN))
    )
    return ModelPart(bundle=bundle, purchase=scores.purchase, actions=scores.actions, candidates=candidates)


def _because(request: Request, scores: Scores, candidate: int) -> tuple[Because, ...]:
    """Return the events that raised a candidate's score most; empty for a bundle without reasons.

    Args:
        request: The event, with the user's session.
        scores: The model's output.
        candidate: Index of the candidate.
    """
    if scores.reasons is None:
        return ()
    largest = sorted(scores.reasons.contributions_to(candidate), reverse=True)[:REASONS_SHOWN]
    return tuple(
        Because(
            item_id=request.items[position],
            action=ACTIONS[request.actions[position]],
            contribution=round_score(contribution),
        )
        for contribution, position in largest
        if round_score(contribution) > 0
    )


def _as_published(request: Request, ad: Ad) -> Request:
    """Return a request with the budgets and click factors that the published decision on ads states.

    A campaign that the decision does not name bids in full, with the model's probability: another policy may let it
    take part.

    Args:
        request: The event, with the user's session.
        ad: Published decision on ads.
    """
    budgets, factors = ad.budgets, ad.click_factors

    def find_multiplier(campaign_id: str) -> float | None:
        return budgets.get(campaign_id, 1.0) if budgets is not msgspec.UNSET else 1.0

    def find_click_factor(campaign_id: str) -> float:
        return factors.get(campaign_id, 1.0) if factors is not msgspec.UNSET else 1.0

    return msgspec.structs.replace(
        request,
        find_multiplier=None if budgets is msgspec.UNSET else find_multiplier,
        find_click_factor=None if factors is msgspec.UNSET else find_click_factor,
    )


def _rules(policy: Policy, target: _Target, scores: Scores | None) -> Iterator[RulePart]:
    """Yield what each rule removed or moved.

    Args:
        policy: Policy of the decision.
        target: The decision.
        scores: The model's output; absent where no model scores the request.
    """
    for shelf, shelf_policy, effects in trace_page(policy, target.request, scores, target.catalogue):
        sentences = {rule.name: rule.sentence for rule in shelf_policy.rules}
        for item_id, rule, rank_before, rank_after in effects:
            yield RulePart(
                item_id=item_id,
                rule=rule,
                sentence=sentences[rule],
                rank_before=rank_before,
                rank_after=rank_after,
                shelf=shelf,
            )


_EXCLUDED: dict[ExclusionCause, str] = {
    "not_running": "it did not run at the time of the event",
    "item": "a rule of the policy forbids its item",
    "quality": "the quality of its item is below its floor",
    "cap": "the user has seen it as often as its cap allows, or may not be counted",
    "budget": "no lease lets it spend: its budget is used up, or the partition waits for the next lease",
}


def _campaigns(policy: Policy, target: _Target, made: _Made) -> Iterator[CampaignPart]:
    """Yield the matching campaigns with the reason why each was shown or not.

    Bidders of the auction come first, by value; then excluded campaigns.

    Args:
        policy: Policy of the decision.
        target: The decision.
        made: The decision, made again.
    """
    ad = _decode_ad(made.ad) if made.ad is not None else None
    if ad is None:
        return
    auction, _ = open_auction(target.request, made.scores, target.catalogue, main_policy(policy, target.request))
    slots = {slot.campaign_id: slot for slot in ad.slots}
    for bidder in auction.bidders:
        slot = slots.get(bidder.campaign.campaign_id)
        outcome = f"shown, at the price {slot.price:g}" if slot else "no slot was left, or its value is too low for one"
        yield _campaign_part(bidder.campaign, bidder.score, outcome)
    for campaign, cause in auction.excluded:
        yield _campaign_part(campaign, None, _EXCLUDED[cause])


def _campaign_part(campaign: Campaign, value: float | None, outcome: str) -> CampaignPart:
    return CampaignPart(
        campaign_id=campaign.campaign_id,
        item_id=campaign.item_id,
        bid=campaign.bid,
        expected_value=round_score(value) if value is not None else None,
        outcome=outcome,
    )


def _decided(target: _Target, made: _Made) -> DecidedItems:
    """Return what a decision shows, and why other items are not shown."""
    scores = made.scores if target.request.variant != CONTROL else None
    decision = _decode_recommendation(made.recommendation)
    removed = {
        part.item_id: part.sentence
        for part in _rules(made.decider.policy, target, made.scores)
        if part.rank_after is None and part.shelf == (decision.shelf or "")
    }
    ad = _decode_ad(made.ad) if made.ad is not None else None
    return DecidedItems(
        items=tuple(choice.item_id for choice in decision.items),
        campaign_id=ad.campaign_id if ad else None,
        removed=removed,
        ranks=None if scores is None else {item: rank for rank, (item, _) in enumerate(scores.candidates(), start=1)},
    )


def _published_items(target: _Target) -> DecidedItems:
    """Return what the published records show, for a decision that cannot be made again."""
    items: tuple[str, ...] = ()
    campaign_id = None
    for decision in target.decisions:
        if isinstance(decision, Recommendation):
            items = tuple(choice.item_id for choice in decision.items)
        else:
            campaign_id = decision.campaign_id
    return DecidedItems(items=items, campaign_id=campaign_id, removed={}, ranks=None)


_decode_recommendation = msgspec.json.Decoder(Recommendation).decode
_decode_ad = msgspec.json.Decoder(Ad).decode
