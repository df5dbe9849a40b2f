"""A page of a shop with the snippet, on a web site of its own, for tests in a browser."""

import html
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from aiohttp import web

PAGE = """<!doctype html><meta charset="utf-8"><title>Shop</title>
<script src="{gateway}/snippet.js" {options}></script>
<style>li {{ height: 100px }} .far {{ margin-top: 3000px }}</style>
<a href="/next">Next page</a>
<ul></ul>
<script>
addEventListener("clickscore", ({{detail: decision}}) => {{
  document.querySelector("ul").replaceChildren(...decision.items.map((item, position) => {{
    const line = document.createElement("li");
    line.textContent = item.item_id;
    line.dataset.clickscore = JSON.stringify({{item_id: item.item_id, position, decision_id: decision.decision_id}});
    return line;
  }}));
}});
</script>"""


@asynccontextmanager
async def shop_site(options: dict[str, str]) -> AsyncGenerator[tuple[str, dict[str, str]]]:
    """Serve a web site for the block; yield its address, and a dictionary that must get the gateway's address.

    Args:
        options: Attributes of the snippet's script, such as `data-item`.
    """
    addresses: dict[str, str] = {}

    async def answer(request: web.Request) -> web.Response:
        if request.path != "/":
            return web.Response(text="<!doctype html><title>Next</title>", content_type="text/html")
        words = " ".join(f'{name}="{html.escape(value)}"' for name, value in options.items())
        page = PAGE.format(gateway=addresses["gateway"], options=words)
        return web.Response(text=page, content_type="text/html")

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", addresses
    finally:
        await runner.cleanup()
