"""Clients: bots and agents are served, and count in nothing that is meant for shoppers."""

import itertools
import json
import random
from collections.abc import Iterable
from pathlib import Path

import msgspec
import pytest

from clickscore.schemas.clients import CLIENT_CODES, ClientClass
from clickscore.schemas.decisions import Recommendation, compared_variant, decode_decision
from clickscore.schemas.events import AnyEvent, PrivacyRecord, Tick, View, encode_event
from clickscore.schemas.sessions import decode_session
from clickscore.schemas.snapshots import UserState, decode_user
from clickscore.stream.pipeline import Pipeline
from clickscore.stream.pipeline_records import Output
from clickscore.stream.reference.catalogue import Catalogue
from clickscore.stream.settings import Settings
from clickscore.stream.state.changelog import restore
from clickscore.stream.state.clients import behaviour_code, user_agent_code
from clickscore.stream.state.popularity import MAX_COUNTED
from tests.events import MINUTE, START, Recorded, impression, purchase, records, view, withdraw

FIELD_CASES = Path(__file__).parents[3] / "shared" / "fieldcases"


def pipeline(**changed: object) -> Pipeline:
    values = Settings.of(**changed)
    return Pipeline(values.sessions, values.policy, "events", Catalogue())


def run(made: Pipeline, *events: AnyEvent | PrivacyRecord | bytes, first: int = 0) -> Output:
    return made.process(0, [record._replace(timestamp=-1) for record in records(*events, first=first)])


def decisions(output: Output) -> list[Recommendation]:
    return [msgspec.json.decode(message.value or b"", type=Recommendation) for message in output.recommendations]


def declared(event: View, **fields: str) -> View:
    return msgspec.structs.replace(event, **fields)


def views(user: str, times_s: Iterable[float], items: Iterable[str] | None = None) -> list[View]:
    names = items or (f"item-{number}" for number in itertools.count())
    return [view(user, second / 60, item) for second, item in zip(times_s, names, strict=False)]


def tick(minute: float) -> bytes:
    return encode_event(Tick(ts=START + round(minute * MINUTE)))


# Classes


def test_shopper_has_no_class_in_the_decision():
    output = run(pipeline(), view("ann", 0))
    assert b"client" not in (output.recommendations[0].value or b"")


@pytest.mark.parametrize("client", ["bot", "agent"])
def test_declared_machine_is_named_with_its_reason(client: str):
    (decision,) = decisions(run(pipeline(), declared(view("ann", 0), client=client)))
    assert (decision.client, decision.client_reason) == (client, "declared")


@pytest.mark.parametrize(
    ("user_agent", "expected"),
    [
        ("Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", ("bot", "user agent")),
        ("Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; GPTBot/1.2)", ("bot", "user agent")),
        ("Mozilla/5.0 (compatible; ChatGPT-User/1.0; +https://openai.com/bot)", ("agent", "user agent")),
        ("Mozilla/5.0 (compatible; Claude-User/1.0)", ("agent", "user agent")),
        ("python-requests/2.32", ("bot", "user agent")),
        ("Mozilla/5.0 (X11; Linux x86_64) HeadlessChrome/120.0", ("bot", "user agent")),
        ("Mozilla/5.0 (Linux; Android 10; CUBOT X30) AppleWebKit/537.36 Mobile Safari/537.36", ("shopper", None)),
        ("Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/126.0 Safari/537.36", ("shopper", None)),
        ("", ("shopper", None)),
    ],
)
def test_class_by_user_agent(user_agent: str, expected: ClientClass):
    assert user_agent_code(user_agent) == CLIENT_CODES[ClientClass(*expected)]


def test_declaration_counts_before_the_user_agent():
    event = declared(view("ann", 0), client="shopper", user_agent="Googlebot")
    (decision,) = decisions(run(pipeline(), event))
    assert (decision.client, decision.client_reason) == (msgspec.UNSET, "declared")


def test_class_stays_for_later_events_without_a_user_agent():
    output = run(pipeline(), declared(view("ann", 0), user_agent="Googlebot"), view("ann", 1), impression("ann", 2))
    assert [decision.client for decision in decisions(output)] == ["bot"] * 3


def test_class_outlives_the_session_as_long_as_purchases():
    made = pipeline(user_ttl_ms=120 * MINUTE)
    run(made, declared(view("ann", 0), client="bot"), tick(60))
    assert decisions(run(made, view("ann", 61), first=2))[0].client == "bot"
    run(made, tick(150), tick(200), first=3)
    assert b"ann" not in made.state(0).contents()


def test_declared_shopper_is_not_remembered_beyond_the_session():
    made = pipeline()
    run(made, declared(view("ann", 0), client="shopper"), tick(60))
    assert b"ann" not in made.state(0).contents()


# Behaviour


def test_quick_steps_from_item_to_item_are_a_bot_by_rate():
    made = decisions(run(pipeline(), *views("bot", [number * 0.4 for number in range(20)])))
    assert (made[10].client, made[11].client, made[11].client_reason) == (msgspec.UNSET, "bot", "rate")


def test_even_gaps_are_a_bot_by_regularity():
    made = decisions(run(pipeline(), *views("bot", [number * 30 for number in range(20)])))
    assert (made[-1].client, made[-1].client_reason) == ("bot", "regularity")


def test_long_session_of_ever_new_items_is_a_bot_by_breadth():
    rng = random.Random(0)
    times = itertools.accumulate(rng.lognormvariate(1.5, 1) + 1 for _ in range(200))
    made = decisions(run(pipeline(), *views("bot", times)))
    assert (made[58].client, made[59].client, made[59].client_reason) == (msgspec.UNSET, "bot", "breadth")


def test_busy_shopper_stays_a_shopper():
    rng = random.Random(1)
    times = list(itertools.accumulate(rng.lognormvariate(2.5, 1) for _ in range(300)))
    items = [f"item-{rng.randrange(40)}" for _ in times]
    assert {decision.client for decision in decisions(run(pipeline(), *views("ann", times, items)))} == {msgspec.UNSET}


def test_double_clicks_on_one_item_are_no_rate():
    times = [second + part for second in range(0, 400, 20) for part in (0, 0.2)]
    rng = random.Random(2)
    times = [time + rng.random() * 10 * (index % 2 == 0) for index, time in enumerate(times)]
    items = [f"item-{index // 2}" for index in range(len(times))]
    made = decisions(run(pipeline(), *views("ann", sorted(times), items)))
    assert made[-1].client is msgspec.UNSET


def test_few_events_are_not_judged():
    assert behaviour_code(UserState(length=11, ages=[0] * 11, items=["a", "b"] * 5 + ["a"], actions=b"\1" * 11)) == 0


# What machines do not count in


def test_machine_is_served_and_makes_nothing_popular():
    made = pipeline()
    output = run(made, view("ann", 0, "kettle"), declared(view("bot", 0, "spam"), client="bot"))
    assert len(output.recommendations) == 2
    assert made.state(0).popular == ["kettle"]


def test_items_of_a_machine_leave_popularity_when_it_is_recognised():
    made = pipeline()
    run(made, view("ann", 0, "kettle"), *views("bot", [number * 0.4 for number in range(20)]))
    assert made.state(0).popular == ["kettle"]


def test_user_counts_once_for_an_item():
    made = pipeline(popularity_refresh_ms=MINUTE)
    run(made, *(view("ann", minute, "a") for minute in range(3)), view("bob", 3, "b"), view("cid", 4, "b"), tick(10))
    assert made.state(0).popular == ["b", "a"]


def test_session_of_a_machine_is_not_published():
    output = run(pipeline(), view("ann", 0), declared(view("bot", 0), client="agent"), tick(60))
    assert [decode_session(message.value or b"").user_id for message in output.closed_sessions] == ["ann"]


def test_machines_count_where_the_setting_says_so():
    made = pipeline(machines="counted")
    output = run(made, declared(view("bot", 0, "spam"), client="bot"), tick(1))
    assert made.state(0).popular == ["spam"]
    assert len(run(made, tick(60), first=2).closed_sessions) == 1
    assert decisions(output)[0].client == "bot"


def test_user_who_is_declared_a_shopper_counts_again():
    made = pipeline()
    run(made, *views("ann", [number * 0.4 for number in range(20)]))
    assert made.state(0).popular == []
    run(made, declared(view("ann", 1, "kettle"), client="shopper"), first=20)
    assert "kettle" in made.state(0).popular
    assert len(made.state(0).popular) == MAX_COUNTED + 1


def test_decision_for_a_machine_is_compared_apart():
    (decision,) = decisions(run(pipeline(), declared(view("bot", 0), client="agent")))
    assert (compared_variant(decision), decision.variant) == ("machine", "model")


def test_ad_for_a_machine_names_it():
    made = pipeline()
    made.catalogue.update_campaign(b"c", b'{"campaign_id": "c", "item_id": "cup", "bid": 1.0}')
    (message,) = run(made, declared(view("bot", 0), client="bot")).ads
    ad = decode_decision(message.value or b"")
    assert (ad.client, ad.client_reason) == ("bot", "declared")


def test_class_of_a_user_without_history_is_that_of_the_event():
    made = pipeline()
    output = run(
        made,
        withdraw("ann", 0, "personalisation"),
        declared(view("ann", 1), client="bot"),
        view("ann", 2),
    )
    assert [decision.client for decision in decisions(output)] == ["bot", msgspec.UNSET]
    assert made.state(0).user("ann").client == 0


def test_user_counts_for_the_newest_items_alone():
    made = pipeline(popularity_refresh_ms=MINUTE)
    run(made, *(view("ann", number**1.5, f"item-{number:02}") for number in range(12)), view("ann", 38, "item-11"))
    run(made, view("bob", 40, "item-00"), tick(47), first=13)
    counted = [f"item-{minute:02}" for minute in range(12 - MAX_COUNTED, 12)]
    assert sorted(made.state(0).popular[: MAX_COUNTED + 1]) == ["item-00", *counted]


def test_user_who_only_views_new_items_counts_for_none_from_the_twelfth_on_until_something_else_comes():
    made = pipeline()
    steps = [number**1.5 / 10 for number in range(12)]
    run(made, view("bob", 0, "cup"), *(view("ann", step, f"item-{step}") for step in steps[:11]))
    assert made.state(0).user("ann").client == 0
    assert len(made.state(0)._popularity._counts) == 9  # pyright: ignore[reportPrivateUsage]
    run(made, view("ann", steps[11], "last"), first=12)
    assert made.state(0)._popularity._counts == {"cup": 1}  # pyright: ignore[reportPrivateUsage]
    run(made, purchase("ann", 38, "last"), first=13)
    assert made.state(0)._popularity._counts["last"] == 1  # pyright: ignore[reportPrivateUsage]


def test_user_who_only_views_new_items_counts_where_machines_do():
    made = pipeline(machines="counted")
    run(made, *(view("ann", number**1.5, f"item-{number}") for number in range(12)))
    assert len(made.state(0)._popularity._counts) == MAX_COUNTED  # pyright: ignore[reportPrivateUsage]


# State


def test_class_survives_a_restart():
    made, heir = pipeline(), pipeline()
    changes = run(made, *views("bot", [number * 0.4 for number in range(20)])).changes
    heir.load({0: restore(changes, "events-0", Settings.of().sessions)})
    assert heir.state(0).contents() == made.state(0).contents()
    assert decisions(run(heir, view("bot", 5, "x"), first=20))[0].client == "bot"
    assert heir.state(0).popular == []


def test_class_costs_a_user_one_byte():
    made = pipeline()
    run(made, purchase("ann", 0))
    snapshot = made.state(0).contents()[b"ann"]
    # no statement on consent, no class, no hand-over, no ads, no ledger: a byte each; then the day of the purchase, and
    # a byte for no impressions
    assert snapshot[-10:-5] == b"\xc0\x00\xc2\xc0\xc0"
    assert snapshot[-1:] == b"\xc0"
    assert decode_user(snapshot).client == 0


# The public case


def test_robot_takes_no_place_from_honest_visitors():
    path = FIELD_CASES / "robot.jsonl"
    if not path.exists():
        pytest.skip("the field cases are not beside the checkout")
    log = [Recorded(offset, -1, None, line) for offset, line in enumerate(path.read_bytes().splitlines())]
    made = decisions(pipeline().process(0, log))
    recognised = next(index for index, decision in enumerate(made) if decision.client == "bot")
    robots = {json.loads(record.value or b"")["item_id"] for record in log if b'"robot"' in (record.value or b"")}
    places = [
        choice.item_id for decision in made[recognised:] if decision.user_id != "robot" for choice in decision.items
    ]
    assert places
    assert not robots.intersection(places)
