"""The snippet for web pages, in a real headless Chromium, on a gateway with a plain log."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from clickscore.schemas.events import Cart, Click, Consent, Impression, View
from clickscore.stream.gateway.api_keys import Scope, make_user_key
from docs.generate import ROOT
from tests.browser import Browser, Page, browser_loop, in_chromium
from tests.stream.gateway.log_double import SOURCE
from tests.stream.gateway.running import RunningGateway, key_header, running_gateway
from tests.stream.gateway.shop_page import shop_site

SNIPPET = (ROOT / "stream/gateway/snippet.js").read_text()
MAX_BYTES = 3_000
GRANT = "clickscore.consent({personalisation: true, ads: true, training: false})"
WITHDRAW = "clickscore.consent({personalisation: false, ads: false, training: false})"

Chromium = tuple[asyncio.Runner, Browser]

pytestmark = pytest.mark.slow


async def wait_until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 (neither the log nor the page has an event for it)
            await asyncio.sleep(0.02)


class Shop(NamedTuple):
    """A page of a shop in a browser, and the gateway that its snippet talks to."""

    page: Page
    gateway: RunningGateway
    address: str

    @property
    def events(self) -> list[Any]:
        """The stored events, in order."""
        return [stored.event for stored in self.gateway.log.events]

    async def wait_for(self, kind: type, count: int = 1) -> list[Any]:
        """Wait until there are so many events of a type, and return them."""

        def matching() -> list[Any]:
            return [event for event in self.events if isinstance(event, kind)]

        await wait_until(lambda: len(matching()) >= count)
        assert len(matching()) == count
        return matching()


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with browser_loop(tmp_path_factory.mktemp("browser")) as started:
        yield started


class Keys(NamedTuple):
    """A user key of anna, made of an API key in a file."""

    scopes: tuple[Scope, ...]
    folder: Path


def in_shop(
    chromium: Chromium,
    work: Callable[[Shop], Awaitable[None]],
    options: dict[str, str] | None = None,
    keys: Keys | None = None,
) -> None:
    """Run a test on the page of a shop, which is another web site than the gateway.

    Args:
        chromium: The browser, and its event loop.
        work: The test.
        options: Attributes of the snippet's script.
        keys: The user key of the page; None for a gateway without keys.
    """
    runner, browser = chromium

    async def run() -> None:
        attributes = {"data-item": "oak-mug", **(options or {})}
        changes: dict[str, Any] = {}
        if keys:
            text = key_header(keys.folder, *keys.scopes)["Authorization"].removeprefix("Bearer ")
            attributes |= {"data-user": "anna", "data-key": make_user_key(text, "anna", 2**40)}
            changes["gateway_keys_file"] = str(keys.folder / "keys.json")
        async with (
            shop_site(attributes) as (address, addresses),
            running_gateway(gateway_cors_origins=address, **changes) as gateway,
        ):
            addresses["gateway"] = gateway.address
            page = await browser.new_page()
            await page.open(address)
            await work(Shop(page, gateway, address))
            await page.close()

    runner.run(run())


def test_size_and_calls_of_the_snippet() -> None:
    assert len(SNIPPET.encode()) < MAX_BYTES
    assert re.findall(r"https?:|eval|innerHTML|import\b", SNIPPET) == []


@in_chromium
def test_before_consent_nothing_is_sent_or_stored(chromium: Chromium) -> None:
    async def work(shop: Shop) -> None:
        await shop.page.evaluate("clickscore.view('pine-bowl')")
        assert await shop.page.evaluate("clickscore.newest()") is None
        await shop.page.evaluate("clickscore.send('cart', {item_id: 'oak-mug'})")
        await shop.page.evaluate(WITHDRAW)
        await shop.page.evaluate(
            "document.querySelector('ul').innerHTML = `<li data-clickscore='{\"item_id\": \"a\"}'>a`"
        )
        await shop.page.click("li")
        await asyncio.sleep(1.5)  # longer than an impression and the queue take
        await shop.page.open(f"{shop.address}/next")
        assert await shop.page.evaluate("Object.keys(localStorage).length") == 0
        assert [url for url in shop.page.urls if "/v1/" in url] == []
        assert shop.events == []

    in_shop(chromium, work)


@in_chromium
def test_consent_view_decision_impression_and_click_arrive(chromium: Chromium) -> None:
    async def work(shop: Shop) -> None:
        await shop.page.evaluate(GRANT)
        assert await shop.page.wait_for("document.querySelector('li')?.textContent") == "birch-kettle"
        consent, view = shop.events
        assert (type(consent), consent.granted, consent.withdrawn) == (
            Consent,
            ("personalisation", "ads"),
            ("training",),
        )
        assert (type(view), view.item_id, view.user_id) == (View, "oak-mug", consent.user_id)
        (impression,) = await shop.wait_for(Impression)
        parts = impression.item_id, impression.position, impression.decision_id
        assert parts == ("birch-kettle", 0, f"{SOURCE}-1")
        assert (await shop.page.evaluate("clickscore.newest()"))["decision_id"] == f"{SOURCE}-2"
        await shop.page.click("li")
        (click,) = await shop.wait_for(Click)
        assert (click.item_id, click.decision_id) == ("birch-kettle", f"{SOURCE}-1")
        assert len({event.event_id for event in shop.events}) == len(shop.events)
        # The next page of the user: the same id, and what was said before is not said again.
        await shop.page.open(shop.address)
        await shop.page.evaluate(GRANT)
        await shop.wait_for(View, 2)
        assert {event.user_id for event in shop.events} == {consent.user_id}
        assert [type(event) for event in shop.events].count(Consent) == 1
        assert shop.page.errors == []

    in_shop(chromium, work)


@in_chromium
def test_events_leave_with_the_page(chromium: Chromium) -> None:
    async def work(shop: Shop) -> None:
        await shop.page.evaluate(GRANT)
        await shop.wait_for(View)
        await shop.page.evaluate("clickscore.send('cart', {item_id: 'oak-mug'}); document.querySelector('a').click()")
        await shop.wait_for(Cart)
        await shop.page.wait_for("document.title == 'Next'")

    in_shop(chromium, work)


@in_chromium
def test_withdrawn_consent_is_sent_once_and_ends_everything(chromium: Chromium) -> None:
    async def work(shop: Shop) -> None:
        await shop.page.evaluate(GRANT)
        await shop.wait_for(View)
        await shop.page.evaluate(WITHDRAW)
        _, withdrawal = await shop.wait_for(Consent, 2)
        assert withdrawal.withdrawn == ("personalisation", "ads", "training")
        count = len(shop.events)
        await shop.page.evaluate("clickscore.view('pine-bowl')")
        await shop.page.evaluate(WITHDRAW)
        await asyncio.sleep(1.5)
        assert len(shop.events) == count
        await shop.page.wait_for("localStorage.clickscore == '{}'")
        await shop.page.open(shop.address)
        await shop.page.evaluate(WITHDRAW)
        await asyncio.sleep(1.5)
        assert len(shop.events) == count

    in_shop(chromium, work)


@in_chromium
def test_impression_is_what_was_on_screen_and_counts_once(chromium: Chromium) -> None:
    async def work(shop: Shop) -> None:
        await shop.page.evaluate(GRANT)
        await shop.wait_for(Impression)
        await shop.page.evaluate(
            "document.querySelector('ul').innerHTML += `<li class=far data-clickscore='{\"item_id\": \"far\"}'>x</li>`"
        )
        await asyncio.sleep(1.5)
        await shop.wait_for(Impression)  # the first line is another element now, and the far one was not on screen
        await shop.page.evaluate("document.querySelector('.far').scrollIntoView({behavior: 'instant'})")
        impressions = await shop.wait_for(Impression, 2)
        assert impressions[-1].item_id == "far"
        await shop.page.evaluate("scrollTo(0, 0)")
        await asyncio.sleep(1.5)
        await shop.wait_for(Impression, 2)

    in_shop(chromium, work)


@in_chromium
def test_events_wait_for_a_gateway_that_refuses_for_now(chromium: Chromium) -> None:
    async def work(shop: Shop) -> None:
        shop.gateway.log.is_storing = False
        await shop.page.evaluate(GRANT)
        await shop.page.evaluate("clickscore.send('cart', {item_id: 'oak-mug'})")
        await wait_until(lambda: any("503" in error for error in shop.page.errors))
        assert shop.events == []
        shop.gateway.log.is_storing = True
        await shop.wait_for(Cart)
        assert [event.__struct_config__.tag for event in shop.events] == ["consent", "view", "cart"]

    in_shop(chromium, work)


@in_chromium
def test_page_with_a_user_key_reads_the_decisions_of_its_user(chromium: Chromium, tmp_path: Path) -> None:
    async def work(shop: Shop) -> None:
        await shop.page.evaluate(GRANT)
        await shop.page.wait_for("document.querySelector('li')")
        assert (await shop.page.evaluate("clickscore.newest()"))["user_id"] == "anna"
        assert {event.user_id for event in shop.events} == {"anna"}

    in_shop(chromium, work, keys=Keys(("events", "read"), tmp_path))


@in_chromium
def test_page_with_the_scope_events_alone_sends_and_reads_nothing(chromium: Chromium, tmp_path: Path) -> None:
    async def work(shop: Shop) -> None:
        await shop.page.evaluate(GRANT)
        await shop.wait_for(View)
        assert await shop.page.evaluate("document.querySelectorAll('li').length") == 0

    in_shop(chromium, work, {"data-decide": "false"}, Keys(("events",), tmp_path))
