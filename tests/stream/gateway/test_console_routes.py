"""The console over HTTP, on records in memory: pages, data, login, actions."""

import asyncio
import gzip
import json
import re
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from clickscore.schemas.events import Erase
from clickscore.schemas.rollouts import Rollout
from clickscore.stream.console.console_state import LogRecord
from clickscore.stream.console.page_files import page_files
from clickscore.stream.gateway.api_keys import make_key, write_keys
from tests.stream.console.records import START_MS, ad, dead_letter, decision, event, item
from tests.stream.gateway.running_console import OWN_PAGE, RunningConsole, running_console

CHAMPION, CHALLENGER = "a" * 64, "b" * 64
RAMP = Rollout(name="default", champion=CHAMPION, challenger=CHALLENGER, share=0.05, changed_at=7)


def with_console(
    work: Callable[[RunningConsole], Awaitable[Any]], records: Iterable[LogRecord] = (), **changes: Any
) -> Any:
    async def run() -> Any:
        async with running_console(records, **changes) as console:
            return await work(console)

    return asyncio.run(run())


def keys(folder: Path, **scopes: list[Any]) -> tuple[dict[str, str], dict[str, Any]]:
    """Write a file of keys, and return the text of each by name, with the settings of a gateway that needs them."""
    made = {name: make_key(name, rights, "2026-03-01T08:00:00+00:00") for name, rights in scopes.items()}
    write_keys(folder / "keys.json", [key.stored for key in made.values()])
    return {name: key.text for name, key in made.items()}, {"gateway_keys_file": str(folder / "keys.json")}


def test_pages_are_small_and_load_nothing_from_outside() -> None:
    files = page_files()
    assert sum(len(file.content) for file in files.values()) < 200_000
    assert sum(len(gzip.compress(file.content)) for file in files.values()) < 50_000
    for name, file in files.items():
        text = file.content.decode()
        assert set(re.findall(r"https?://[\w.]+", text)) <= {"http://www.w3.org"}, (
            name
        )  # the name of SVG, not an address
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|\.style\b| style=| on\w+=\"", text
        ), name


def test_pages_have_a_strict_policy() -> None:
    async def work(console: RunningConsole) -> None:
        for path in ("/console", "/console/console.js", "/console/console.css", "/console/shop"):
            answer = await console.get(path)
            assert answer.status == 200
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "script-src 'self'" in policy
            assert "require-trusted-types-for 'script'" in policy
            assert "unsafe" not in policy
            assert answer.headers["x-content-type-options"] == "nosniff"
        assert (await console.get("/console/../server.py")).status == 404
        assert (await console.get("/console/nothing.js")).status == 404
        assert (await console.get("/")).status == 200  # redirected

    with_console(work, has_shop=True)


def test_shop_is_a_page_of_the_demo_alone() -> None:
    async def work(console: RunningConsole) -> None:
        assert (await console.get("/console/shop")).status == 404
        assert (await console.read("shop")).status == 404
        assert (await console.read("session")).json["has_shop"] is False

    with_console(work)


def test_data_of_each_page() -> None:
    records = [item("cup", "Blue cup"), item("pot", "Pot"), event(0), decision(0), ad(0), dead_letter(1, "no JSON")]
    records.append(event(2, kind="click", item_id="pot", decision_id="clickstream-events-0-0"))

    async def work(console: RunningConsole) -> None:
        await console.topics.write_rollout(RAMP)
        shop = await console.read_until("shop", "items")
        assert shop["categories"] == ["Tea"]
        assert [found["item_id"] for found in (await console.read("shop?query=BLUE")).json["items"]] == ["cup"]
        assert (await console.read("shop?category=Tea")).json["items"][1]["title"] == "Pot"
        story = (await console.read("user?id=anna")).json
        assert [moment["event"]["type"] for moment in story["moments"]] == ["click", "view"]
        assert story["moments"][1]["ad"]["slots"][0]["campaign_id"] == "spring"
        assert story["items"]["pot"]["title"] == "Pot"
        assert (await console.read("user?id=nobody")).json["moments"] == []
        assert (await console.read("decision?id=clickstream-events-0-0")).json["moment"]["decision"][
            "variant"
        ] == "model"
        assert (await console.read("decision?id=x")).status == 404
        outcomes = (await console.read("outcomes")).json
        assert outcomes["variants"]["model"]["clicks"] == 1
        assert outcomes["campaigns"]["spring"]["won"] == 1
        health = (await console.read("health")).json
        assert health["dead_letters"][0]["reason"] == "no JSON"
        assert health["workers"]["w-1"]["decisions"] == 1
        assert health["status"]["members"] == [0]
        (rollout,) = (await console.read("rollouts")).json["rollouts"]
        assert rollout["challenger"] == CHALLENGER[:12]
        assert (await console.read("item?id=pot")).json["counts"]["clicked_beside"] == {"cup": 1}
        assert (await console.read("item?id=x")).status == 404
        assert (await console.read("items")).json["ranked"][0] == ["pot", 1, 0, 1]
        assert (await console.read("nothing")).status == 404

    with_console(work, records, has_shop=True)


def test_decision_is_explained_by_the_gateway() -> None:
    async def work(console: RunningConsole) -> None:
        await console.post({"type": "view", "event_id": "e", "user_id": "u", "ts": START_MS, "item_id": "cup"})
        explanation = await console.get("/console/explain?id=clickstream-events-0-0")
        assert explanation.body == await console.log.explain("clickstream-events-0-0")
        assert (await console.get("/console/explain?id=x")).status == 404

    with_console(work)


def test_stream_sends_frames_from_the_cursor_on() -> None:
    async def work(console: RunningConsole) -> None:
        await console.read_until("user?id=anna", "moments")
        generation = console.console.state.generation
        # The cursor of another state, such as before a restart of the gateway, means other moments.
        for header, expected in (
            (f"{generation}-0", 1),
            (f"{generation}-1", 0),
            ("x", 1),
            ("0a1b2c3d-1", 1),
            ("-1", 1),
        ):
            async with console.client.get(
                f"{console.address}/console/stream", headers={"Last-Event-ID": header}
            ) as response:
                assert response.headers["content-type"].startswith("text/event-stream")
                text = b""
                while b"data:" not in text or not text.endswith(b"\n\n"):
                    text += await response.content.readany()
            assert f"id: {generation}-1\n".encode() in text
            frame = json.loads(text.partition(b"data: ")[2])
            assert len(frame["moments"]) == expected
            assert frame["cursor"] == 1

    with_console(work, [event(0), decision(0)])


def test_end_of_the_server_ends_an_open_stream(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> bytes:
        async with aiohttp.ClientSession() as client:
            async with running_console() as console:
                response = await client.get(f"{console.address}/console/stream")
                beginning = await response.content.readany()
            return beginning + await response.content.read()  # an answer that is cut off raises an error

    assert asyncio.run(run()).endswith(b"\n\n")
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []


def test_login_keeps_the_key_where_no_script_reads_it(tmp_path: Path) -> None:
    texts, changes = keys(tmp_path, reader=["read"], sender=["events"])

    async def work(console: RunningConsole) -> None:
        assert (await console.read("session")).status == 401
        assert (await console.get("/console/stream")).status == 401
        assert (await console.get("/console")).status == 200  # the page has the form, and no data
        for key, status in ((texts["reader"] + "x", 401), (texts["sender"], 403)):
            body = json.dumps({"key": key}).encode()
            assert (await console.send("POST", "/console/login", body, OWN_PAGE)).status == status
        answer = await console.send("POST", "/console/login", json.dumps({"key": texts["reader"]}).encode(), OWN_PAGE)
        assert answer.status == 204
        cookie = answer.headers["set-cookie"]
        assert {"HttpOnly", "SameSite=strict", "Path=/console"} <= set(cookie.split("; "))
        assert "Secure" not in cookie
        secure = await console.send(
            "POST", "/console/login", json.dumps({"key": texts["reader"]}).encode(), OWN_PAGE | {"Origin": "https://a"}
        )
        assert "Secure" in secure.headers["set-cookie"]
        session = await console.read("session", Cookie=cookie.partition(";")[0])
        assert (session.json["name"], session.json["scopes"]) == ("reader", ["read"])
        assert texts["reader"] not in session.body.decode()
        assert (
            "clickscore_console="
            in (await console.send("POST", "/console/logout", b"{}", OWN_PAGE)).headers["set-cookie"]
        )

    with_console(work, **changes)


@pytest.mark.parametrize("path", ["/console/login", "/console/actions/erase"])
def test_deep_body_is_400(path: str) -> None:
    async def work(console: RunningConsole) -> None:
        token = (await console.read("session")).json["token"]
        body = b'{"a": ' + b"[" * 5_000
        assert (await console.send("POST", path, body, OWN_PAGE | {"X-Console-Token": token})).status == 400

    with_console(work)


def test_odd_origin_and_odd_token_are_403() -> None:
    async def work(console: RunningConsole) -> None:
        odd_origin = {"Content-Type": "application/json", "Origin": "http://["}
        assert (await console.send("POST", "/console/login", b"{}", odd_origin)).status == 403
        odd_token = OWN_PAGE | {"X-Console-Token": "\u00fc"}
        assert (await console.send("POST", "/console/actions/erase", b"{}", odd_token)).status == 403

    with_console(work)


def test_actions_need_the_scope_the_origin_and_the_token(tmp_path: Path) -> None:
    texts, changes = keys(tmp_path, reader=["read"], boss=["read", "admin"])
    body = b'{"user_id": "anna"}'

    async def work(console: RunningConsole) -> None:
        reader, boss = ({"Cookie": f"clickscore_console={texts[name]}"} for name in ("reader", "boss"))
        token = {"X-Console-Token": (await console.read("session", **boss)).json["token"]}

        async def erase(**headers: str) -> int:
            return (await console.send("POST", "/console/actions/erase", body, headers)).status

        assert (await console.act("erase", body, **reader)).status == 403
        assert await erase(**boss, **OWN_PAGE) == 403  # no token
        assert await erase(**boss, **OWN_PAGE, **{"X-Console-Token": "0" * 64}) == 403
        assert await erase(**boss, **token, **OWN_PAGE | {"Sec-Fetch-Site": "cross-site"}) == 403
        assert await erase(**boss, **token, **OWN_PAGE | {"Sec-Fetch-Site": "same-site"}) == 403
        assert await erase(**boss, **token, **{"Content-Type": "application/json"}) == 403  # no origin at all
        assert await erase(**boss, **token, **{"Content-Type": "application/json", "Origin": "https://evil"}) == 403
        assert await erase(**boss, **token, **OWN_PAGE | {"Content-Type": "text/plain"}) == 415
        assert (await console.send("GET", "/console/actions/erase", None, boss | token | OWN_PAGE)).status == 405
        assert console.log.events == []
        own = {"Content-Type": "application/json", "Origin": console.address}
        assert await erase(**boss, **token, **own) == 200  # a browser without Sec-Fetch-Site
        assert (await console.act("erase", body, **boss)).status == 200
        assert [type(stored.event) for stored in console.log.events] == [Erase, Erase]
        assert console.log.events[0].event.user_id == "anna"
        assert (await console.act("erase", b"{}", **boss)).status == 400
        assert (await console.act("erase", b"[", **boss)).status == 400
        assert (await console.act("nothing", b"{}", **boss)).status == 404

    with_console(work, **changes)


@pytest.mark.parametrize(("step", "champion"), [("promote", CHALLENGER), ("roll_back", CHAMPION)])
def test_rollout_changes_only_as_the_person_has_seen_it(step: str, champion: str) -> None:
    async def work(console: RunningConsole) -> None:
        await console.topics.write_rollout(RAMP)
        await console.read_until("rollouts", "rollouts")
        body = {"rollout": "default", "changed_at": 7, "reason": "more clicks"}
        assert (await console.act(step, json.dumps(body | {"changed_at": 6}).encode())).status == 409
        assert (await console.act(step, json.dumps(body | {"rollout": "x"}).encode())).status == 404
        assert (await console.act(step, json.dumps(body).encode())).json["rollout"]["champion"] == champion
        async with asyncio.timeout(20):
            while (shown := (await console.read("rollouts")).json["rollouts"][0]["rollout"])["changed_at"] == 7:  # noqa: ASYNC110 (over HTTP)
                await asyncio.sleep(0.01)
        assert shown["champion"] == champion
        assert "more clicks" in shown["reason"]
        again = json.dumps(body | {"changed_at": shown["changed_at"]}).encode()
        assert (await console.act("promote", again)).status == 409  # no challenger any more

    with_console(work)


def test_console_of_loopback_answers_to_its_own_names_alone() -> None:
    async def work(console: RunningConsole) -> None:
        assert (await console.read("session", Host="evil.example")).status == 421
        assert (await console.get("/console", Host="evil.example")).status == 421

    with_console(work)


def test_stories_are_read_only_while_somebody_looks() -> None:
    async def work(console: RunningConsole) -> None:
        await asyncio.sleep(0.1)
        assert console.console.state.status.is_reading is False
        await console.read_until("user?id=anna", "moments")
        assert console.console.state.status.since_ms == START_MS

    with_console(work, [event(0), decision(0)])
