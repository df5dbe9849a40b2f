"""Frequency caps in the pipeline: counted from the log, the same after a restart, and forgotten after their day."""

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clickscore.schemas.ad_impressions import campaign_hash
from clickscore.schemas.catalogue import encode
from clickscore.schemas.decisions import Ad, decode_decision
from clickscore.schemas.durations import DAY_MS
from clickscore.schemas.events import AnyEvent, Impression, PrivacyRecord, Tick, decode_record, encode_event
from clickscore.schemas.handover import HandedAds, Handover
from clickscore.schemas.snapshots import UserState, decode_user
from clickscore.stream.pipeline import Pipeline
from clickscore.stream.pipeline_records import Output
from clickscore.stream.policy.ad_policy import Ads
from clickscore.stream.reference.catalogue import Catalogue
from clickscore.stream.settings import Settings
from clickscore.stream.state.changelog import restore
from tests.events import (
    MINUTE,
    START,
    erase,
    grant,
    handed_session,
    handover,
    identify,
    records,
    search,
    view,
    withdraw,
)
from tests.events import impression as plain_impression
from tests.object_search import mentions
from tests.scored_requests import make_campaign, plain

Logged = AnyEvent | PrivacyRecord | Handover | bytes

UNTIL_MIDNIGHT = (DAY_MS - START % DAY_MS) / MINUTE
"""Minutes from the start of the tests to the end of the day."""


def pipeline(cap: int | None = 2, **ads: object) -> Pipeline:
    """Return a pipeline with one campaign."""
    values = Settings.of()
    policy = plain(ads=Ads(**ads))  # pyright: ignore[reportArgumentType]
    made = Pipeline(values.sessions, values.policy, "events", Catalogue(), policy_file=policy)
    made.catalogue.update_campaign(b"c", encode(make_campaign("c", "ad", 1, frequency_cap=cap)))
    return made


def run(made: Pipeline, *events: Logged, first: int = 0) -> Output:
    return made.process(0, [record._replace(timestamp=-1) for record in records(*events, first=first)])


def impression(user: str, minute: float, campaign: str = "c") -> Impression:
    return msgspec.structs.replace(plain_impression(user, minute), campaign_id=campaign)


def tick(minute: float) -> bytes:
    return encode_event(Tick(ts=START + round(minute * MINUTE)))


def campaigns(output: Output) -> list[str | None]:
    ads = [decode_decision(message.value or b"") for message in output.ads]
    return [ad.campaign_id for ad in ads if isinstance(ad, Ad)]


def state(made: Pipeline, user: str) -> UserState | None:
    snapshot = made.state(0).contents().get(user.encode())
    return decode_user(snapshot) if snapshot else None


def test_campaign_is_shown_as_often_as_its_cap_says():
    output = run(pipeline(), view("ann", 0), impression("ann", 1), view("ann", 2), impression("ann", 3), view("ann", 4))
    assert campaigns(output) == ["c", "c", "c", None, None]


def test_no_id_stays_of_an_erased_user_whose_ads_were_overdue():
    made, night = pipeline(), UNTIL_MIDNIGHT
    session = [view("ann", night - 10), impression("ann", night - 9), view("ann", night + 15)]
    run(made, *session, tick(night + 16), withdraw("ann", night + 17, "ads"), tick(night + 90))
    assert mentions(made.state(0), "ann")
    run(made, erase("ann", night + 91), first=10)
    assert not mentions(made.state(0), "ann")


def test_repeated_impression_counts_once():
    output = run(pipeline(), impression("ann", 1), impression("ann", 1), view("ann", 2))
    assert campaigns(output)[-1] == "c"


def test_impression_of_no_campaign_or_another_does_not_count():
    events = plain_impression("ann", 1), impression("ann", 2, "d"), impression("bob", 3), impression("bob", 4)
    assert campaigns(run(pipeline(), *events, view("ann", 5)))[-1] == "c"


def test_cap_is_for_a_day():
    output = run(pipeline(1), impression("ann", 1), view("ann", 2), view("ann", UNTIL_MIDNIGHT + 1))
    assert campaigns(output) == [None, None, "c"]


def test_late_impression_does_not_count():
    output = run(pipeline(1), view("ann", 600), impression("ann", 1), view("ann", 601))
    assert campaigns(output)[-1] == "c"


@pytest.mark.parametrize("purpose", ["ads", "personalisation"])
def test_without_consent_nothing_is_counted_and_no_capped_campaign_is_shown(purpose: str):
    made = pipeline()
    output = run(made, impression("ann", 0), withdraw("ann", 1, purpose), impression("ann", 2), view("ann", 3))  # pyright: ignore[reportArgumentType]
    assert campaigns(output) == ["c", None, None]
    user = state(made, "ann")
    assert user
    assert user.ads is None


def test_user_who_grants_again_starts_at_zero():
    events = impression("ann", 0), impression("ann", 1), withdraw("ann", 2, "ads"), grant("ann", 3, "ads")
    assert campaigns(run(pipeline(), *events, view("ann", 4)))[-1] == "c"


def test_session_limit_counts_the_ads_of_the_session():
    made = pipeline(None, per_session=1)
    assert campaigns(run(made, view("ann", 0), impression("ann", 1), view("ann", 2))) == ["c", None, None]
    assert campaigns(run(made, view("ann", 60), first=3)) == ["c"]


def test_user_with_nothing_but_impressions_is_forgotten_after_the_day():
    made = pipeline()
    run(made, impression("ann", 1))
    assert state(made, "ann")
    run(made, tick(UNTIL_MIDNIGHT + 20), first=1)
    assert state(made, "ann") is None


def test_counts_are_forgotten_after_the_day_also_by_the_next_worker():
    heir = pipeline()
    heir.load({0: restore(run(pipeline(), impression("ann", 1)).changes, "events-0", Settings.of().sessions)})
    run(heir, tick(UNTIL_MIDNIGHT + 20), first=1)
    assert state(heir, "ann") is None


def test_counts_of_an_open_session_stay_until_it_ends():
    made = pipeline()
    run(made, impression("ann", UNTIL_MIDNIGHT - 20), view("ann", UNTIL_MIDNIGHT - 1), tick(UNTIL_MIDNIGHT + 20))
    user = state(made, "ann")
    assert user
    assert user.ads
    run(made, tick(UNTIL_MIDNIGHT + 60), first=3)
    assert state(made, "ann") is None


def test_counts_of_a_newer_day_outlive_the_older():
    made = pipeline()
    run(made, impression("ann", 1), impression("ann", UNTIL_MIDNIGHT + 1), tick(UNTIL_MIDNIGHT + 60))
    assert state(made, "ann")
    run(made, tick(UNTIL_MIDNIGHT + 25 * 60), first=3)
    assert state(made, "ann") is None


def test_user_who_was_forgotten_within_a_batch_starts_anew():
    whole, split = pipeline(), pipeline()
    events = view("bob", 0), view("ann", 36), impression("bob", 36)
    run(whole, *events)
    run(split, *events[:2])
    run(split, events[2], first=2)
    assert state(whole, "bob") == state(split, "bob")


def test_erased_user_starts_at_zero():
    output = run(pipeline(1), impression("ann", 0), erase("ann", 1), view("ann", 2), tick(UNTIL_MIDNIGHT + 60))
    assert campaigns(output) == [None, "c"]


def test_default_without_consent_ends_the_counts_with_the_grant():
    values = Settings.of(consent_ads="withdrawn", consent_ttl_ms=60 * MINUTE)
    made = Pipeline(values.sessions, values.policy, "events", Catalogue())
    run(made, grant("ann", 0, "ads"), impression("ann", 1), tick(59), tick(90))
    assert state(made, "ann") is None


def test_shown_ads_cost_sixteen_bytes_each():
    made = pipeline(None)
    run(made, view("ann", 0))
    sizes = [len(made.state(0).contents()[b"ann"])]
    for number in range(1, 4):
        run(made, impression("ann", number), first=number)
        sizes.append(len(made.state(0).contents()[b"ann"]))
    assert sizes[1] - sizes[0] <= 16 + 9
    assert [later - earlier for earlier, later in pairwise(sizes[1:])] == [16, 16]


# Hand-overs


def test_identified_user_takes_over_the_counts():
    made = pipeline()
    output = run(
        made, view("cookie", 0), impression("cookie", 1), impression("cookie", 2), identify("cookie", 3, "ann")
    )
    handed = decode_record(output.handovers[0].value or b"")
    assert isinstance(handed, Handover)
    assert (handed.ads and len(handed.ads.impressions), handed.ads and handed.ads.in_session) == (32, 2)
    assert campaigns(run(made, handed, view("ann", 4), view("cookie", 5), first=4)) == [None, "c"]


def test_user_without_consent_to_ads_takes_no_counts_over():
    made = pipeline()
    ads = HandedAds(day=START // DAY_MS, impressions=campaign_hash("c") + bytes(8))
    run(made, withdraw("ann", 0, "ads"), handover("ann", 1, handed_session(0), ads=ads))
    user = state(made, "ann")
    assert user
    assert user.ads is None


def test_cut_off_impressions_in_a_handover_are_a_dead_letter():
    value = encode_event(handover("ann", 1, handed_session(0)))[:-1] + b',"ads":{"day":1,"impressions":"AAAA"}}'
    output = run(pipeline(), value)
    assert "cut off" in output.dead_letters[0].error


# Restarts

EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["view", "search", "impression", "impression", "withdraw", "grant", "erase", "tick"]),
        st.sampled_from(["ann", "bob"]),
        st.integers(0, 40),
        st.sampled_from("cd"),
    ),
    max_size=30,
)


def build(kind: str, user: str, minute: float, campaign: str) -> Logged:
    makers = {
        "view": lambda: view(user, minute),
        "search": lambda: search(user, minute),
        "impression": lambda: impression(user, minute, campaign),
        "withdraw": lambda: withdraw(user, minute, "ads"),
        "grant": lambda: grant(user, minute, "ads"),
        "erase": lambda: erase(user, minute),
        "tick": lambda: tick(minute),
    }
    return makers[kind]()


@given(EVENTS, st.data())
@settings(max_examples=150)
def test_state_after_a_restart_is_the_state(steps: list[tuple[str, str, int, str]], data: st.DataObject):
    minutes = [sum(step[2] for step in steps[: index + 1]) for index in range(len(steps))]
    log = [build(kind, user, 3 * minute, name) for (kind, user, _, name), minute in zip(steps, minutes, strict=True)]
    cut = data.draw(st.integers(0, len(log)))
    whole, split = pipeline(), pipeline()
    expected = campaigns(run(whole, *log))
    first = run(split, *log[:cut])
    heir = pipeline()
    heir.load({0: restore(first.changes, "events-0", Settings.of().sessions)})
    rest = run(heir, *log[cut:], first=cut)
    assert campaigns(first) + campaigns(rest) == expected
    assert heir.state(0).contents() == whole.state(0).contents()
