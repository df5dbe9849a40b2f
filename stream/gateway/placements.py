"""Placements: the content of a shelf or of an ad placement of a page, from the newest decisions of a user."""

import msgspec

from clickscore.schemas.decisions import PLAIN_LIST, Ad, Recommendation
from clickscore.schemas.json_depth import bounded_depth
from clickscore.stream.errors import RequestError
from clickscore.stream.gateway.answers import PlacementAnswer, encode_answer

OLD_AD_MS = 60_000
"""Age from which on ads are not shown beside a newer recommendation, ms of event time: the last campaign is gone."""

_decode_recommendation = bounded_depth(msgspec.json.Decoder(Recommendation).decode)
_decode_ad = bounded_depth(msgspec.json.Decoder(Ad).decode)


def select_placement(name: str, recommendation: bytes, ad: bytes | None) -> bytes:
    """Return what a placement shows, as JSON.

    A shelf goes before an ad placement of the same name.

    Args:
        name: Name of a shelf or of an ad placement; `PLAIN_LIST` for the list of a page without shelves.
        recommendation: The newest recommendation of a user, as published.
        ad: The newest decision on an ad of the user, as published; None without campaigns.

    Raises:
        RequestError: The decisions have no such placement, or a newer worker has published another form.
    """
    try:
        placements = _placements(_decode_recommendation(recommendation), _decode_ad(ad) if ad else None)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise RequestError(503, f"the newest decision has a form that this gateway does not know: {exc}") from exc
    if name not in placements:
        words = ", ".join(placements)
        raise RequestError(404, f"the newest decisions of this user have no placement {name!r}; they have {words}")
    return encode_answer(placements[name])


def _placements(recommendation: Recommendation, ad: Ad | None) -> dict[str, PlacementAnswer]:
    """Return all placements of a page by name.

    Args:
        recommendation: The newest recommendation.
        ad: The newest decision on an ad, if any.
    """
    lists = {recommendation.shelf or PLAIN_LIST: recommendation.items}
    lists |= {shelf.name: shelf.items for shelf in recommendation.shelves or ()}
    answers = {
        name: PlacementAnswer(
            placement=name,
            user_id=recommendation.user_id,
            decision_id=recommendation.decision_id,
            event_id=recommendation.event_id,
            items=items,
        )
        for name, items in lists.items()
    }
    if ad is None or ad.ts < recommendation.ts - OLD_AD_MS:
        return answers
    for name in dict.fromkeys(slot.placement for slot in ad.slots):
        answers.setdefault(
            name,
            PlacementAnswer(
                placement=name,
                user_id=ad.user_id,
                decision_id=ad.decision_id,
                event_id=ad.event_id,
                slots=tuple(slot for slot in ad.slots if slot.placement == name),
            ),
        )
    return answers
