"""Explanation text: a decision in plain sentences, safe for a terminal."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from clickscore.schemas.decisions import Choice
from clickscore.schemas.events import AnyEvent, ItemEvent
from clickscore.schemas.explanations import Alternative, CampaignPart, Explanation, ModelPart, SessionPart
from clickscore.stream.kafka.tail import ACTION_WORDS
from clickscore.stream.terminal_text import safe_text

EVENTS_SHOWN = 12
"""Number of newest events of the session in the text; the JSON has all that were remembered."""
DIFFERENCES_SHOWN = 10
"""Number of differing fields in the text: enough to see a pattern."""
EFFECTS_SHOWN = 20
"""Number of effects of rules in the text."""

_VERDICTS = {
    "equal": "Made again from the log, it has the same bytes as the published record.",
    "different": "Made again from the log, it DIFFERS from the published record.",
    "not published": "It was made again from the log, and there is no published record to compare.",
    "not recomputed": "It could not be made again.",
    "no decision": "There is no decision.",
}


def describe_explanation(explanation: Explanation, user: str) -> str:
    """Return an explanation as lines of safe text.

    Args:
        explanation: The explanation.
        user: Name of the user to print, such as a hash of the id.
    """
    return "\n".join(map(safe_text, _lines(explanation, user)))


def describe_briefly(explanation: Explanation) -> str:
    """Return the id and the verdict in a line of safe text."""
    doubts = [f": {explanation.problem}"] if explanation.problem else []
    if explanation.approximate:
        doubts.append(f" (approximate: {'; '.join(explanation.approximate)})")
    return safe_text(f"{explanation.decision_id}  {explanation.verdict}{''.join(doubts)}")


def _lines(explanation: Explanation, user: str) -> Iterator[str]:
    yield f"Decision {explanation.decision_id}"
    yield _verdict(explanation)
    for doubt in explanation.approximate:
        yield f"Approximate: {doubt}."
    for field in explanation.differences[:DIFFERENCES_SHOWN]:
        yield f"  {field.field}: published {field.published}, made again {field.recomputed}"
    if explanation.event is None or explanation.session is None:
        return
    yield ""
    yield f"Event: {_event(explanation.event, user)}"
    yield from _session(explanation.session)
    if explanation.policy and explanation.recomputed is not None:
        yield from _model(explanation.model, explanation.session)
        yield from _rules(explanation)
        yield from _ad(explanation)
    yield from _versions(explanation)
    for alternative in explanation.what_if:
        yield from _alternative(alternative)


def _verdict(explanation: Explanation) -> str:
    sentences = [_VERDICTS[explanation.verdict]]
    if explanation.verdict == "different" and explanation.approximate:
        sentences.append("Something that it depends on is missing, so this proves nothing.")
    if explanation.problem:
        sentences.append(f"{explanation.problem[0].upper()}{explanation.problem[1:]}.")
    if explanation.repeats:
        sentences.append(f"It was published {explanation.repeats + 1} times with the same bytes, which is no error.")
    return " ".join(sentences)


def _event(event: AnyEvent, user: str) -> str:
    if isinstance(event, ItemEvent):
        action = ACTION_WORDS[str(event.__struct_config__.tag)]
        return f"{_utc(event.ts)}, {user} {action} {event.item_id}."
    return f"{_utc(event.ts)}, {user} searched."


def _session(session: SessionPart) -> Iterator[str]:
    if not session.length:
        yield "Session: none was open, so nothing of the user was known but purchases."
    else:
        yield f"Session: {_count(session.length, 'event')} so far, this one included. Oldest first:"
        hidden = session.length - min(len(session.events), EVENTS_SHOWN)
        if hidden:
            yield f"  {_count(hidden, 'older event')}"
        for event in session.events[-EVENTS_SHOWN:]:
            yield f"  {_age(event.before_ms):>18}  {_action(event.action, event.item_id)}"
    if session.bought:
        yield f"  The user has bought {_listed(session.bought)}."
    if session.late:
        yield "  The event came late: it changed no session, and was decided with the session as it was."
    if session.withheld:
        yield f"  The user gives no consent to {' and '.join(session.withheld)}."
    if session.client != "shopper":
        yield f"  The user is taken for a {session.client} ({session.client_reason})."
    if session.variant != "model":
        yield f"  The user is in the variant {session.variant} of the test."


def _model(model: ModelPart | None, session: SessionPart) -> Iterator[str]:
    if model is None:
        yield "Model: no model scored this event, so popular items are shown."
        return
    expectations: list[str] = []
    if model.actions:
        likely = sorted(model.actions.items(), key=lambda pair: -pair[1])[:3]
        expectations.append(f"next action {', '.join(f'{name} {share:.0%}' for name, share in likely)}")
    if model.purchase is not None:
        expectations.append(f"purchase in this session {model.purchase:.1%}")
    yield f"Model: bundle {model.bundle}{' expects ' if expectations else ''}{'; '.join(expectations)}."
    if session.variant == "popular":
        yield "  The user is in the control group, so its candidates are not used."
    elif not model.candidates:
        yield "  It knows no item of the session, so it has no candidates."
    for rank, candidate in enumerate(model.candidates, start=1):
        causes = ", ".join(
            f"{_action(cause.action, cause.item_id)} ({cause.contribution:+.3f})" for cause in candidate.because
        )
        because = f"  because the user {causes}" if causes else ""
        yield f"  {rank:>2}. {candidate.item_id}  {candidate.score:.4f}{because}"


def _rules(explanation: Explanation) -> Iterator[str]:
    yield f"Rules: policy {explanation.policy}."
    for rule in explanation.rules[:EFFECTS_SHOWN]:
        item = f"  {f'{rule.shelf}: ' if rule.shelf else ''}{rule.item_id}"
        if rule.rank_before is None and rule.rank_after is None:
            yield f"{item} is not shown because {rule.sentence} ({rule.rule})."
        elif rule.rank_before is None:
            yield f"{item} was put at rank {rule.rank_after} by {rule.rule}: {rule.sentence}."
        elif rule.rank_after is None:
            yield f"{item} was left out by {rule.rule}: {rule.sentence}."
        else:
            ranks = f"from rank {rule.rank_before} to {rule.rank_after}"
            yield f"{item} moved {ranks} by {rule.rule}: {rule.sentence}."
    if len(explanation.rules) > EFFECTS_SHOWN:
        yield f"  ... and {len(explanation.rules) - EFFECTS_SHOWN} more."
    if not explanation.rules:
        yield "  No rule removed or moved an item."
    yield f"Shown{f' on {explanation.shelf}' if explanation.shelf else ''}: {_choices(explanation.items)}."
    for shelf in explanation.shelves:
        yield f"  on {shelf.name}: {_choices(shelf.items)}."


def _choices(choices: Iterable[Choice]) -> str:
    return _listed(f"{choice.item_id} ({choice.reason})" for choice in choices) or "nothing"


def _ad(explanation: Explanation) -> Iterator[str]:
    ad = explanation.ad
    if ad is None:
        yield "Ad: none, because there was no campaign, or because the policy shows no ads."
        return
    shown = f"item {ad.item_id} of campaign {ad.campaign_id}" if ad.campaign_id else "none"
    yield f"Ad: {shown}; {ad.reason}."
    for campaign in explanation.campaigns:
        yield f"  {_campaign(campaign)}"


def _campaign(campaign: CampaignPart) -> str:
    value = "" if campaign.expected_value is None else f", expected value {campaign.expected_value:g}"
    return f"{campaign.campaign_id}: item {campaign.item_id}, bid {campaign.bid:g}{value}: {campaign.outcome}."


def _versions(explanation: Explanation) -> Iterator[str]:
    bundle = f"bundle {explanation.bundle}" if explanation.bundle else "no bundle"
    epoch = explanation.epoch
    if epoch is None:
        yield f"Versions: {bundle}, policy {explanation.policy}; the log has no epoch."
        return
    yield (
        f"Versions: {bundle}, policy {explanation.policy}; epoch {epoch.number}: catalogue up to offset "
        f"{epoch.catalogue}, campaigns up to {epoch.campaigns}, settings {epoch.settings or 'unknown'}."
    )


def _alternative(alternative: Alternative) -> Iterator[str]:
    yield ""
    bundle = f"bundle {alternative.bundle}" if alternative.bundle else "no bundle"
    yield f"What if: {bundle}, policy {alternative.policy}."
    yield f"  Shown: {_listed(alternative.items) or 'nothing'}."
    for change in alternative.changes:
        yield f"  - {change.rstrip('.')}."
    if not alternative.changes:
        yield "  Nothing would differ."


def _action(action: str, item_id: str) -> str:
    return "searched" if action == "search" else f"{ACTION_WORDS[action]} {item_id}"


def _listed(parts: Iterable[str]) -> str:
    return ", ".join(parts)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _age(before_ms: int | None) -> str:
    """Return how long before the newest event of the session an event came."""
    if before_ms is None:
        return ""
    return f"{_duration(before_ms)} before" if before_ms else "newest"


def _duration(ms: int) -> str:
    seconds = ms // 1000
    if seconds < 60:
        return f"{seconds} s"
    minutes, seconds = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def _utc(ts: int) -> str:
    return datetime.fromtimestamp(ts / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
