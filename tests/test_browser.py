"""The browser of the tests: what it shows, notes and keeps inside this machine."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.browser import Browser, in_chromium, running_browser

pytestmark = [pytest.mark.slow, in_chromium]

PAGE = """<!doctype html><title>t</title>
<button onclick="document.title = 'clicked'">Buy</button>
<img src="http://outside.invalid/pixel.png" alt="">
<script>addEventListener('keydown', event => document.title = event.key)</script>
<script>console.error('told'); throw new Error('thrown')</script>"""


def in_browser(folder: Path, work: Callable[[Browser], Awaitable[Any]]) -> None:
    async def run() -> None:
        async with running_browser(folder) as browser:
            await work(browser)

    asyncio.run(run())


def test_page_is_driven_and_what_it_does_is_noted(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(PAGE)

    async def work(browser: Browser) -> None:
        page = await browser.new_page(400, 300)
        await page.set_media(prefers_color_scheme="dark")
        await page.open((tmp_path / "page.html").as_uri())
        assert await page.evaluate("[innerWidth, matchMedia('(prefers-color-scheme: dark)').matches]") == [400, True]
        await page.click("button")
        assert await page.wait_for("document.title == 'clicked' && document.title") == "clicked"
        await page.press("Tab")
        await page.wait_for("document.title == 'Tab'")
        assert {"role": "button", "name": "Buy"} in await page.accessibility_tree()
        await page.screenshot(tmp_path / "shot.png")
        assert (tmp_path / "shot.png").read_bytes().startswith(b"\x89PNG")
        errors = " ".join(page.errors)
        assert "told" in errors
        assert "Error: thrown" in errors
        assert "http://outside.invalid/pixel.png" in page.urls  # asked for, and not reached:
        assert "ERR_PROXY_CONNECTION_FAILED http://outside.invalid/pixel.png" in errors
        with pytest.raises(AssertionError, match="ReferenceError: nothing"):
            await page.evaluate("nothing")
        await page.close()

    in_browser(tmp_path, work)
