"""Headless Chromium for tests: open pages, run JavaScript in them, and note errors and requests of the pages.

The browser is Debian's package `chromium`, or any Chromium or Chrome on the PATH. CI installs Debian's package; a test
with the mark `in_chromium` is skipped where no browser is there. Chromium is driven by the Chrome DevTools Protocol.
Nothing leaves the machine: hosts outside loopback go to a proxy that does not exist.
"""

import asyncio
import base64
import contextlib
import json
import os
import shutil
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
START_SECONDS = 60
"""Longest start of the browser, s: on a busy machine it takes 10 s."""
WAIT_SECONDS = 30
"""Longest wait for a page, s."""
QUIET = ("gpu", "quic", "background-networking", "component-update", "sync", "domain-reliability", "extensions")
"""Parts of Chromium that would open connections or windows of their own."""

in_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (Debian: chromium)")


def browser_environment() -> dict[str, str]:
    """Return the environment of this process without proxies."""
    return {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}


class Browser:
    """A running Chromium."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._pages: dict[str, Page] = {}

    async def new_page(self, width: int = 1280, height: int = 900) -> "Page":
        """Return an empty page without cookies and storage of other pages, of a size in CSS pixels."""
        context = await self.call("Target.createBrowserContext")
        target = await self.call("Target.createTarget", url="about:blank", **context)
        session = (await self.call("Target.attachToTarget", flatten=True, **target))["sessionId"]
        page = self._pages[session] = Page(self, session, target["targetId"])
        for domain in ("Page", "Runtime", "Network", "Log"):
            await page.call(f"{domain}.enable")
        await page.resize(width, height)
        return page

    async def call(self, method: str, session: str = "", **parameters: Any) -> dict[str, Any]:
        """Call a method of the Chrome DevTools Protocol, and return its result."""
        number = len(self._answers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        message = {"id": number, "method": method, "params": parameters, **({"sessionId": session} if session else {})}
        await self._socket.send_json(message)
        async with asyncio.timeout(WAIT_SECONDS):
            content = await answer
        assert "error" not in content, f"{method}: {content['error']}"
        return content["result"]

    async def read(self) -> None:
        """Hand out the messages of Chromium until the task is cancelled."""
        async for message in self._socket:
            content = json.loads(message.data)
            if "id" in content:
                answer = self._answers[content["id"]]
                if not answer.done():
                    answer.set_result(content)
            elif page := self._pages.get(content.get("sessionId", "")):
                page.note(content["method"], content["params"])


class Page:
    """A page of the browser."""

    def __init__(self, browser: Browser, session: str, target: str) -> None:
        self.errors: list[str] = []
        """Uncaught exceptions, and errors in the console: also requests that failed."""
        self.urls: list[str] = []
        """Addresses that the page has asked for."""
        self._browser = browser
        self._session = session
        self._target = target
        self._loaded = asyncio.Event()

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the Chrome DevTools Protocol on the page, and return its result."""
        return await self._browser.call(method, self._session, **parameters)

    async def open(self, url: str) -> None:
        """Go to an address, and wait until the page is loaded."""
        self._loaded.clear()
        answer = await self.call("Page.navigate", url=url)
        assert "errorText" not in answer, f"{url}: {answer['errorText']}"
        async with asyncio.timeout(WAIT_SECONDS):
            await self._loaded.wait()

    async def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression, as JSON has it. A promise is awaited."""
        answer = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        fault = answer.get("exceptionDetails")
        assert not fault, f"{expression}: {_describe(fault)}"
        return answer["result"].get("value")

    async def wait_for(self, expression: str) -> Any:
        """Wait until a JavaScript expression is true, and return its value."""
        value = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WAIT_SECONDS):
                while not (value := await self.evaluate(expression)):  # noqa: ASYNC110 (pages have no event for it)
                    await asyncio.sleep(0.05)
        text = await self.evaluate("document.body.innerText.slice(0, 1000)") if not value else ""
        assert value, f"never true: {expression}\nerrors: {self.errors}\n{text}"
        return value

    async def click(self, selector: str) -> None:
        """Click with the mouse in the middle of the first element of a CSS selector, after scrolling to the element."""
        box = await self.evaluate(f"""(element => {{
            element.scrollIntoView({{block: 'center', behavior: 'instant'}});
            const box = element.getBoundingClientRect();
            return {{x: box.x + box.width / 2, y: box.y + box.height / 2}};
        }})(document.querySelector({json.dumps(selector)}))""")
        for kind in ("mousePressed", "mouseReleased"):
            await self.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **box)

    async def press(self, key: str) -> None:
        """Press a key by its name of `KeyboardEvent.key`, such as Tab, Enter or a."""
        codes = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32, "ArrowUp": 38, "ArrowDown": 40}
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        fields = {"key": key, "code": key, "windowsVirtualKeyCode": codes.get(key, ord(key[0].upper()))}
        await self.call("Input.dispatchKeyEvent", type="keyDown", **fields, **({"text": text} if text else {}))
        await self.call("Input.dispatchKeyEvent", type="keyUp", **fields)

    async def resize(self, width: int, height: int) -> None:
        """Set the size of the window, CSS pixels."""
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )

    async def set_media(self, **features: str) -> None:
        """Set media features, such as `prefers_color_scheme="dark"`."""
        pairs = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        await self.call("Emulation.setEmulatedMedia", features=pairs)

    async def screenshot(self, path: Path) -> None:
        """Write what the window shows into a PNG file."""
        picture = base64.b64decode((await self.call("Page.captureScreenshot"))["data"])
        await asyncio.to_thread(path.write_bytes, picture)

    async def accessibility_tree(self) -> list[dict[str, Any]]:
        """Return what a screen reader reads: nodes with `role` and `name`."""
        nodes = (await self.call("Accessibility.getFullAXTree"))["nodes"]
        return [
            {field: node.get(field, {}).get("value", "") for field in ("role", "name")}
            for node in nodes
            if not node["ignored"]
        ]

    async def close(self) -> None:
        """Close the page as a person closes a tab: `pagehide` runs."""
        await self._browser.call("Target.closeTarget", targetId=self._target)

    def note(self, method: str, content: dict[str, Any]) -> None:
        """Take a message of Chromium on the page."""
        match method:
            case "Page.loadEventFired":
                self._loaded.set()
            case "Network.requestWillBeSent":
                self.urls.append(content["request"]["url"])
            case "Runtime.exceptionThrown":
                self.errors.append(_describe(content["exceptionDetails"]))
            case "Log.entryAdded" if content["entry"]["level"] == "error":
                self.errors.append(f"{content['entry']['text']} {content['entry'].get('url', '')}")
            case "Runtime.consoleAPICalled" if content["type"] == "error":
                self.errors.append(" ".join(str(part.get("value", part)) for part in content["args"]))
            case _:
                pass


@asynccontextmanager
async def running_browser(folder: Path) -> AsyncGenerator[Browser]:
    """Run Chromium for the block.

    Args:
        folder: Folder for the profile of the browser.
    """
    process = await asyncio.create_subprocess_exec(
        str(CHROMIUM),
        "--headless",
        "--no-sandbox",  # as root, in a container
        "--no-first-run",
        *(f"--disable-{name}" for name in QUIET),
        f"--user-data-dir={folder / 'profile'}",
        "--proxy-server=http://127.0.0.1:1",  # for hosts outside loopback: Chromium asks no proxy for loopback
        "--remote-debugging-port=0",
        "about:blank",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env=browser_environment(),
        limit=2**20,
    )
    assert process.stderr
    try:
        async with asyncio.timeout(START_SECONDS):
            lines: list[str] = []
            while "DevTools listening on" not in (lines or [""])[-1]:
                line = await process.stderr.readline()
                assert line, "\n".join(lines)
                lines.append(line.decode(errors="replace"))
        draining = asyncio.create_task(_drain(process.stderr))
        address = lines[-1].split()[-1]
        async with aiohttp.ClientSession() as client, client.ws_connect(address, max_msg_size=0) as socket:
            browser = Browser(socket)
            reading = asyncio.create_task(browser.read())
            try:
                yield browser
                with contextlib.suppress(TimeoutError, ConnectionError):
                    await asyncio.wait_for(browser.call("Browser.close"), 5)
            finally:
                reading.cancel()
                draining.cancel()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@contextmanager
def browser_loop(folder: Path) -> Generator[tuple[asyncio.Runner, Browser]]:
    """Run Chromium in an event loop for the block, for several tests: `runner.run(test(browser))`.

    Args:
        folder: Folder for the profile of the browser.
    """
    with asyncio.Runner() as runner:
        context = running_browser(folder)
        browser = runner.run(context.__aenter__())
        try:
            yield runner, browser
        finally:
            runner.run(context.__aexit__(None, None, None))


async def _drain(stream: asyncio.StreamReader) -> None:
    """Read what Chromium writes, so that its pipe does not fill up."""
    while await stream.read(65_536):
        pass


def _describe(fault: dict[str, Any]) -> str:
    """Return an exception of JavaScript in words."""
    return fault.get("exception", {}).get("description") or fault.get("text", "")
