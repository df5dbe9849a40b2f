"""The console's pages in a headless Chromium, on records in memory."""

import asyncio
import json
from pathlib import Path

import pytest

from clickscore.schemas.events import Erase
from clickscore.schemas.rollouts import Rollout
from clickscore.stream.console.console_state import LogRecord
from clickscore.stream.gateway.api_keys import make_key, write_keys
from tests.browser import Page, in_chromium, running_browser
from tests.stream.console.records import (
    ad,
    campaign,
    dead_letter,
    decision,
    event,
    item,
    lease,
    spend_report,
)
from tests.stream.gateway.running_console import RunningConsole, running_console

pytestmark = [in_chromium, pytest.mark.slow]

HOSTILE = """<img src=x onerror="document.title='taken'">"""
RAMP = Rollout(name="default", champion="a" * 64, challenger="b" * 64, share=0.05, changed_at=7, reason=HOSTILE)
RECORDS = [
    item("cup", "Blue cup"),
    item("pot", "Tea pot"),
    item("jug", HOSTILE),
    event(0),
    decision(0, items=("pot", "jug")),
    ad(0),
    event(1, kind="impression", item_id="pot", decision_id="clickstream-events-0-0", position=0),
    event(2, kind="click", item_id="jug", decision_id="clickstream-events-0-0-ad", campaign_id="spring"),
    event(3, HOSTILE, item_id=HOSTILE, session_id=HOSTILE),
    decision(3, HOSTILE, items=(HOSTILE, "jug"), session_id=HOSTILE, variant=HOSTILE, policy=HOSTILE),
    dead_letter(4, HOSTILE, HOSTILE.encode()),
    campaign("spring", 20.0),
    campaign(HOSTILE, 5.0),
    lease(5, "spring", 3_000_000, 0.625),
    spend_report(6, "spring", 1_250_000, 3_000_000, lease=1),
]
GOODS = [item("cup", "Blue cup"), item("oak-mug", "Oak mug"), item("birch-kettle", "Birch kettle")]
ESCAPED = "%3Cimg%20src%3Dx%20onerror%3D%22document.title%3D'taken'%22%3E"


async def has_text(page: Page, text: str) -> None:
    await page.wait_for(f"document.getElementById('main').textContent.includes({json.dumps(text)})")


async def poll(console: RunningConsole, page: Page, *records: LogRecord) -> None:
    """Add records to the topics, and let the page ask for the newest data, as when a person comes back to it."""
    console.topics.records += records
    await asyncio.sleep(0.05)  # the console reads its topics all 10 ms
    await page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


async def go(page: Page, path: str, *texts: str) -> None:
    """Go to a page of the console, and check its texts, its landmarks and its names for assistive programs."""
    await page.evaluate(f"location.hash = {json.dumps('#/' + path)}")
    for text in texts:
        await has_text(page, text)
    faults = await page.evaluate("""(() => {
        const all = selector => [...document.querySelectorAll(selector)];
        return [
            ...all('input').filter(field => !field.labels.length).map(field => 'no label: ' + field.id),
            ...all('button, a').filter(each => !each.textContent.trim()).map(each => 'no name: ' + each.outerHTML),
            ...all('table').filter(each => !each.caption).map(() => 'no caption'),
            ...all('svg:not([aria-label], [aria-hidden])').map(() => 'no description'),
            ...(all('h1').length === 1 ? [] : ['not one h1']),
            ...(all('main, nav, header').length === 3 ? [] : ['landmarks are missing']),
            ...(all('nav [aria-current=page]').length === 1 ? [] : ['no current page']),
            ...all('main img').map(() => 'markup of an id'),
        ];
    })()""")
    assert faults == []
    assert await page.evaluate("document.title") != "taken"


def check_page(page: Page, console: RunningConsole) -> None:
    assert page.errors == []
    assert all(url.startswith(console.address) for url in page.urls)


async def every_page_shows_its_facts_and_hostile_ids_stay_text(console: RunningConsole, page: Page) -> None:
    await console.topics.write_rollout(RAMP)
    await page.open(f"{console.address}/console")
    await go(page, "live", "looked at Blue cup", HOSTILE, "purchase 13 %", "left out: 3 out of stock")
    await go(page, "user/anna", "Tea pot", "the model's choice, because the user looked at Blue cup", "autumn")
    assert await page.evaluate("document.activeElement.tagName") == "H1"
    await go(page, f"user/{ESCAPED}", HOSTILE)
    await go(page, "item", "Most clicked")
    await go(page, "item/jug", HOSTILE, "From where", "Blue cup")
    await go(page, f"item/{ESCAPED}", HOSTILE)
    await go(page, "variants", "Clicks per 100 impressions", "model", HOSTILE)
    await go(page, "campaigns", "spring", "0.50", "autumn (1)", HOSTILE)
    cells = "[...document.querySelectorAll('[aria-label=Budgets] tbody tr')].map(row => row.innerText.split('\\t'))"
    await page.wait_for(f"{cells}.some(row => row.includes('18.75'))")
    assert [cell for cell in (await page.evaluate(cells))[1] if cell.strip()] == [
        "spring",
        "20.00",
        "1.25",
        "18.75",
        "1.75",
        "0.625",
    ]
    await go(page, "rollouts", "Champion", "a" * 12, "Promote")
    await go(page, "health", "w-1", HOSTILE, "Workers read every partition")
    await go(page, "user", "Enter a user id")
    for width, scheme in ((360, "dark"), (1280, "light")):
        await page.resize(width, 800)
        await page.set_media(prefers_color_scheme=scheme)
        for path in ("live", "user/anna", "item/jug", "variants", "campaigns", "rollouts", "health"):
            await page.evaluate(f"location.hash = '#/{path}'")
            await page.wait_for("Boolean(document.querySelector('main .card, main .feed li, main table'))")
            assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{path} is too wide"
    check_page(page, console)


async def admin_promotes_and_erases_after_a_confirmation(console: RunningConsole, page: Page) -> None:
    await console.topics.write_rollout(RAMP)
    await page.open(f"{console.address}/console#/rollouts")
    await has_text(page, "Promote …")
    await page.click("main .tools button")
    await page.wait_for("Boolean(document.querySelector('dialog[open]'))")
    await page.press("Escape")
    await page.wait_for("!document.querySelector('dialog')")
    assert len(console.topics.records) == len(RECORDS) + 1
    await page.click("main .tools button")
    await page.wait_for("Boolean(document.querySelector('dialog[open]'))")
    await page.click("dialog button[value=yes]")
    await has_text(page, "Promote: stored.")
    await poll(console, page)
    await has_text(page, "Former champion")
    await page.evaluate("location.hash = '#/user/anna'")
    await page.wait_for("Boolean(document.querySelector('button.danger'))")
    await page.evaluate("document.querySelector('button.danger').focus()")
    await page.press("Enter")
    await page.wait_for("document.activeElement.textContent === 'Cancel'")
    await page.press("Tab")
    await page.press("Enter")
    await has_text(page, "is stored; the receipt follows")
    assert isinstance(console.log.events[0].event, Erase)
    check_page(page, console)


async def person_logs_in_and_out(console: RunningConsole, page: Page, key: str) -> None:
    await page.open(f"{console.address}/console#/user/anna")
    await page.wait_for("document.activeElement.id === 'key'")
    for text, words in (("wrong", "missing, wrong or expired"), (key, "Tea pot")):
        await page.evaluate(f"document.getElementById('key').value = {json.dumps(text)}")
        await page.click("main button")
        await has_text(page, words)
    assert await page.evaluate("document.cookie + JSON.stringify({...localStorage, ...sessionStorage})") == "{}"
    assert await page.evaluate("Boolean(document.querySelector('button.danger'))") is False  # no admin
    await page.click("#state button")
    await page.wait_for("Boolean(document.getElementById('key'))")


async def removed_key_asks_for_a_login_on_the_live_page(
    console: RunningConsole, page: Page, key: str, keys: Path
) -> None:
    await page.open(f"{console.address}/console#/live")
    await page.wait_for("document.activeElement.id === 'key'")
    await page.evaluate(f"document.getElementById('key').value = {json.dumps(key)}")
    await page.click("main button")
    await has_text(page, "Blue cup")
    write_keys(keys, [])
    console.access.reload()
    console.routes.end_streams()  # the browser opens the next stream, and is refused
    await page.wait_for("Boolean(document.getElementById('key'))")


async def sentences_read_well(console: RunningConsole, page: Page) -> None:
    await page.open(f"{console.address}/console")
    sentences = await page.evaluate("""import('/console/words.js').then(words => {
        const items = {cup: {title: 'Blue cup'}, pot: {title: 'Tea $& pot'}};
        const event = (type, fields) => words.deed({type, item_id: 'pot', ...fields}, items);
        const cause = (item_id, action) => ({item_id, action});
        const because = [cause('cup', 'cart'), cause('cup', 'view'), cause('x', 'y')];
        const slot = {campaign_id: 'c', item_id: 'cup', placement: 'beside', slot: 1, bid: 2, price: 1.5};
        return [
            event('cart', {}), event('purchase', {quantity: 3}), event('constructor', {}),
            event('search', {query: 'mug'}), words.deed(null, items), words.whyShown({reason: 'model', because}, items),
            words.whyShown({reason: 'sponsored', campaign_id: 'c'}, items),
            words.filtered({stock: 1, on_screen: 2000, toString: 0}), words.filtered(undefined),
            ...words.sales({slots: [{...slot, position: null, bid_per: 'click', runner_up: 'd'},
                                    {...slot, position: 3, bid_per: 'order', runner_up: null}]}, items),
            words.interval([0.126, 0.118, 0.134], 100), words.interval([0.5, null, null], 100),
            words.interval(null, 1), words.title('__proto__', items), words.money(1234.5),
            words.percent(null), words.counted(1, 'event'), words.counted(2000, 'event'),
            ...words.sessions([
                {decision: {session_id: 'b'}, event: {}},
                {decision: null, event: {}},
                {decision: {session_id: 'a'}, event: {}},
            ]).map(part => part.id + part.moments.length),
        ];
    })""")
    assert sentences == [
        "put Tea $& pot into the cart",
        "bought 3 \u00d7 Tea $& pot",
        "constructor Tea $& pot",
        "searched for “mug”",
        "did something that the console has not read",
        "the model's choice, because the user put Blue cup into the cart, and y x",
        "an ad of c",
        "2,000 on screen, 1 out of stock",
        "",
        "c won slot 2 of beside with Blue cup: it bids 2.00 and pays 1.50 for a click, before d",
        "c won place 4 with Blue cup: it bids 2.00 and pays 1.50 for an order, without a rival",
        "12.6 (11.8 to 13.4)",
        "50",
        "\u2013",
        "__proto__",
        "1,234.50",
        "\u2013",
        "1 event",
        "2,000 events",
        "b1",
        "a2",
    ]
    check_page(page, console)


async def focus_stays_while_a_page_polls(console: RunningConsole, page: Page) -> None:
    await page.open(f"{console.address}/console#/item")
    await has_text(page, "Blue cup")
    await page.evaluate("document.querySelector('main table a').focus()")
    await poll(console, page, event(20), decision(20, items=("kettle",)))
    await page.wait_for("document.getElementById('state').textContent.includes('holds still')")
    assert await page.evaluate("document.activeElement.matches('main table a')")
    await page.evaluate("document.activeElement.blur()")
    await poll(console, page)
    await has_text(page, "kettle")
    check_page(page, console)


async def focus_stays_in_the_story_of_a_user(console: RunningConsole, page: Page) -> None:
    await page.open(f"{console.address}/console#/user/anna")
    await has_text(page, "Tea pot")
    await page.evaluate("document.querySelector('details.moment summary').focus()")
    opened = await page.evaluate("document.querySelectorAll('details.moment[open]').length")
    await poll(console, page, event(20, item_id="kettle"), decision(20))
    await page.wait_for("document.getElementById('state').textContent.includes('holds still')")
    assert await page.evaluate("document.activeElement.matches('details.moment summary')")
    await page.evaluate("document.activeElement.blur()")
    await poll(console, page)
    await has_text(page, "kettle")
    assert await page.evaluate("document.querySelectorAll('details.moment[open]').length") == opened
    check_page(page, console)


async def burst_of_events_freezes_no_page(console: RunningConsole, page: Page) -> None:
    """Records of two seconds at 1,000 events/s, each of another user with other items, while the pages are used."""

    async def burst() -> None:
        for offset in range(10, 2010):
            names = {"variant": f"v{offset}", "items": (f"i{offset}", f"j{offset}"), "policy": f"p{offset}"}
            console.topics.records += [
                event(offset, f"u{offset}", item_id=f"i{offset}"),
                decision(offset, f"u{offset}", **names),
            ]
            if offset % 50 == 0:
                await asyncio.sleep(0)

    await page.open(f"{console.address}/console")
    await has_text(page, "Blue cup")
    sending = asyncio.create_task(burst())
    await has_text(page, "shows a sample")
    await page.click("main .tools button")
    assert await page.evaluate("document.querySelector('main .tools button').getAttribute('aria-pressed')") == "true"
    await sending
    assert await page.evaluate("document.querySelectorAll('.feed li.moment').length") <= 40
    for path in ("item", "variants", "campaigns", "rollouts", "health"):
        await page.evaluate(f"location.hash = '#/{path}'")
        await page.wait_for("Boolean(document.querySelector('main .card, main table'))")
        assert await page.evaluate("document.querySelectorAll('main tr').length") <= 100, path
    check_page(page, console)


async def shopper_is_followed_by_recommendations(console: RunningConsole, page: Page) -> None:
    panel = "document.getElementById('panel').textContent"
    await page.open(f"{console.address}/console/shop")
    await page.wait_for(f"document.querySelectorAll('main .goods a').length === {len(GOODS)}")
    await page.click("main .goods a[href='#/i/cup']")
    await has_text(page, "For you")
    await has_text(page, "Ad of tea-week")
    await page.click("main .goods a[href='#/i/birch-kettle']")
    await page.wait_for(f"{panel}.includes('You clicked Birch kettle')")
    await page.wait_for("document.querySelector('main h1').textContent === 'Birch kettle'")
    await page.click("main .hero button")
    await has_text(page, "You put Birch kettle into the cart.")
    await page.wait_for(f"{panel}.includes('tea-week won slot 1 of beside with Oak mug')")
    text = await page.evaluate(panel)
    for words in ("You put Birch kettle into the cart", "variant popular", "popular now", "clickstream-events-0-"):
        assert words in text
    sent = [json.loads(stored.value) for stored in console.log.events]
    deeds = [record for record in sent if record["user_id"] == sent[-1]["user_id"] and record["type"] != "impression"]
    assert [deed["type"] for deed in deeds] == ["view", "click", "view", "cart"]
    assert json.loads(console.log.decisions[deeds[1]["decision_id"]])["event_id"] == deeds[0]["event_id"]
    check_page(page, console)


def test_console_in_a_browser(tmp_path: Path) -> None:
    key = make_key("boss", ["read"], "2026-03-01T08:00:00+00:00")
    write_keys(tmp_path / "keys.json", [key.stored])

    async def run() -> None:
        async with running_browser(tmp_path / "profile") as browser:
            for scenario in (
                every_page_shows_its_facts_and_hostile_ids_stay_text,
                admin_promotes_and_erases_after_a_confirmation,
                sentences_read_well,
                focus_stays_while_a_page_polls,
                focus_stays_in_the_story_of_a_user,
                burst_of_events_freezes_no_page,
            ):
                async with running_console(RECORDS) as console:
                    await scenario(console, await browser.new_page())
            async with running_console(GOODS, has_shop=True) as console:
                await shopper_is_followed_by_recommendations(console, await browser.new_page())
            async with running_console(RECORDS, gateway_keys_file=str(tmp_path / "keys.json")) as console:
                await person_logs_in_and_out(console, await browser.new_page(), key.text)
                page = await browser.new_page()
                await removed_key_asks_for_a_login_on_the_live_page(console, page, key.text, tmp_path / "keys.json")

    asyncio.run(run())
