"""Statement: the main parameters of the recommendations in plain words, as a page in Markdown.

The page answers Article 27 of the Digital Services Act (Regulation (EU) 2022/2065) and Article 5 of the regulation on
business users of platforms (Regulation (EU) 2019/1150): the main parameters, the relative importance of each, the
options of the user, and the influence of payments. Every number on the page was measured on the given events.
"""

from collections.abc import Iterator, Mapping

from clickscore.stream.policy.policy_file import PolicyFile
from clickscore.stream.policy.policy_words import policy_sentences
from clickscore.stream.replay.list_changes import HISTORY, POPULARITY, SESSION, ListChanges
from clickscore.stream.settings import PolicySettings

SMALL_SHARE = 0.005
"""Share of the shown items under which a part is listed without a number of its own: half an item of a hundred."""

_PART_WORDS = {
    SESSION: "What you do in your visit: the products that you view, search, put into the cart and buy.",
    HISTORY: "The steps of your visit before the newest one.",
    POPULARITY: "What many visitors look at. Popular products fill places for which we know nothing better.",
}


def write_statement(policy: PolicyFile, settings: PolicySettings, changes: ListChanges, source: str) -> str:
    """Return the page.

    Args:
        policy: The policy.
        settings: Values for what the policy leaves out.
        changes: Measurements of a replay.
        source: Name of the events, for the page.
    """
    return "\n".join([*_lines(policy, settings, changes, source), ""])


def _lines(policy: PolicyFile, settings: PolicySettings, changes: ListChanges, source: str) -> Iterator[str]:
    sentences = policy_sentences(policy, settings)
    yield "# How we choose the products that we recommend"
    yield ""
    yield (
        "This page says which main parameters determine the products in our recommendations and their order, how "
        "important each parameter is, what you can change, and what is paid for."
    )
    yield ""
    yield from _importance(sentences, changes)
    yield from _rules(sentences)
    yield from _options()
    yield from _payments(policy, changes)
    yield "## How this was measured"
    yield ""
    yield (
        f"Policy `{policy.label}`, owned by {policy.owner}. We took {changes.measured:,} of {changes.events:,} "
        f"decisions on recorded events ({source}; impressions left out), and made each decision again without each "
        f"parameter. The table counts how many of the {changes.shown:,} shown products were others then. "
        "`clickscore policy statement` writes this page."
    )


def _importance(sentences: Mapping[str, str], changes: ListChanges) -> Iterator[str]:
    yield "## What matters most"
    yield ""
    if not changes.shown:
        yield "No product was shown for the events that were measured, so nothing can be said about importance."
        yield ""
        return
    yield (
        "Without this parameter, so many of 100 shown products would be others, and so many of 100 pages would change:"
    )
    yield ""
    yield "| parameter | products | pages |"
    yield "|---|---|---|"
    small: list[str] = []
    for part in changes.parts:
        words = _PART_WORDS.get(part.part) or _sentence(part.part, sentences)
        if part.items < SMALL_SHARE and part.pages < SMALL_SHARE:
            small.append(words)
        else:
            yield f"| {_cell(words)} | {100 * part.items:.1f} | {100 * part.pages:.1f} |"
    yield ""
    if small:
        yield f"These parameters changed fewer than {100 * SMALL_SHARE:.1f} of 100 products and pages:"
        yield ""
        yield from (f"- {words}" for words in small)
        yield ""
    yield (
        f"A statistical model chose {_percent(changes.by_model, changes.shown)} of the shown products. It has learned "
        "from earlier visits which products follow each other. The parameters with the largest numbers matter most, "
        "because they say most about what a visitor looks for at the moment."
        if changes.by_model
        else "No statistical model chose products: popular products are shown."
    )
    yield ""


def _sentence(part: str, sentences: Mapping[str, str]) -> str:
    """Return the sentence of a part; pins, and categories whose items return, have a sentence each.

    Args:
        part: Name of the part.
        sentences: Sentences of the policy by field.
    """
    if part in sentences:
        return sentences[part]
    return " ".join(sentence for name, sentence in sentences.items() if name.startswith((f"{part} ", f"{part}.")))


def _rules(sentences: Mapping[str, str]) -> Iterator[str]:
    yield "## All rules"
    yield ""
    yield from (f"- {sentence}" for sentence in sentences.values())
    yield ""


def _options() -> Iterator[str]:
    yield "## What you can change"
    yield ""
    yield (
        "You can withhold or withdraw your consent to personalisation: then the recommendations follow from the "
        "product on screen alone, and we keep no history of your visit. You can withhold your consent to personalised "
        "ads: then ads follow from the product on screen alone. You can ask us to erase what we know of you."
    )
    yield ""


def _payments(policy: PolicyFile, changes: ListChanges) -> Iterator[str]:
    yield "## What is paid for"
    yield ""
    if not policy.ads.shown:
        yield "Nothing: nobody can pay for a place, and no ad is shown."
        yield ""
        return
    in_list = any(placement.places for placement in policy.ads.placements.values())
    yield (
        "Advertisers bid for places for ads. The bid, the probability that the ad brings what the bid is for, and "
        "the fit of the product decide about the shown ad. Every ad is marked. "
        + (
            "Ads may take places within the list of recommendations, and move the other products back."
            if in_list
            else "Ads stand beside the lists. A page with several lists does not repeat an advertised product in them; "
            "payments change nothing else in the lists."
        )
    )
    if changes.shown:
        yield ""
        yield (
            f"{_percent(changes.sponsored, changes.shown)} of the products in the lists were ads, and "
            f"{_percent(changes.pages_with_ads, changes.measured)} of the pages had an ad, within the list or beside."
        )
    if policy.goals.counts_money:
        yield ""
        yield "The order also counts the price of a product or what we earn from it, as the rules say."
    yield ""


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
