"""Console routes: the pages of the console, their data, and the actions of an admin, over HTTP."""

import asyncio
import hashlib
import hmac
import secrets
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from clickscore.schemas.events import Erase, encode_event
from clickscore.schemas.json_depth import bounded_depth
from clickscore.stream.console.console import Console
from clickscore.stream.console.page_files import page_files
from clickscore.stream.errors import RequestError
from clickscore.stream.gateway.access import Access
from clickscore.stream.gateway.api_keys import ApiKey, Scope
from clickscore.stream.gateway.event_bodies import IncomingEvent
from clickscore.stream.gateway.http_app import CONSOLE_PATH, read_body
from clickscore.stream.gateway.openapi import JSON
from clickscore.stream.gateway.service import GatewayService

COOKIE = "clickscore_console"
"""Cookie with the API key of a person who is logged in."""
TOKEN_HEADER = "x-console-token"
"""Header of every action, with the token of the page."""
FRAME_SECONDS = 0.5
"""Time between two frames of a stream, s."""
STREAM_SECONDS = 25.0
"""Length of a stream, s: below the longest life of a request. The browser opens the next stream by itself."""
MAX_STREAMS = 50
"""Streams at the same time. A browser with a further stream gets 503, and tries again."""
MAX_ACTION_BYTES = 16 * 1024
ITEMS_SHOWN = 50
"""Number of items in the table of the most clicked items."""
DESCRIBED_ITEMS = 200
"""Most described items of an answer."""
SHOP_ITEMS = 48
"""Number of items of a page of the shop."""

PAGE_HEADERS = {
    # Scripts and styles of this server alone, no inline script, and no text that becomes markup (trusted types).
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}

_encode = msgspec.json.Encoder().encode
_Answer = Callable[[Request], Any]


class Action(msgspec.Struct, frozen=True, kw_only=True):
    """The body of an action."""

    user_id: str = ""
    """User to erase."""
    rollout: str = ""
    """Name of the rollout to change."""
    changed_at: int = 0
    """`changed_at` of the rollout on the person's page, ms."""
    reason: str = ""
    """Why, in words."""


class Login(msgspec.Struct, frozen=True, kw_only=True):
    """The body of a login."""

    key: str


class ConsoleRoutes:
    """The routes of a console."""

    def __init__(self, console: Console, access: Access, service: GatewayService) -> None:
        """Connect the parts.

        Args:
            console: The console.
            access: Checks the keys of requests.
            service: Stores the events that erase users.
        """
        self._console = console
        self._access = access
        self._service = service
        self._streams = 0
        self._is_ending = False
        self._secret = secrets.token_bytes(32)
        self._answers: Mapping[str, _Answer] = {
            "session": self._session,
            "user": self._user,
            "decision": self._decision,
            "outcomes": self._outcomes,
            "rollouts": self._rollouts,
            "health": self._health,
            "describe": self._describe,
            "item": self._item,
            "items": self._items,
        } | ({"shop": self._shop} if console.has_shop else {})
        self._actions: Mapping[str, Callable[[Action], Awaitable[Any]]] = {
            "erase": self._erase,
            "promote": lambda action: self._change_rollout("promote", action),
            "roll_back": lambda action: self._change_rollout("roll_back", action),
        }

    @property
    def routes(self) -> list[BaseRoute]:
        """The routes, for the app."""
        pages = [Route(f"{CONSOLE_PATH}/{name}", _file_handler(name)) for name in page_files() if name != "shop.html"]
        if self._console.has_shop:
            pages.append(Route(f"{CONSOLE_PATH}/shop", _file_handler("shop.html")))
        return [
            Route("/", _redirect),
            Route(CONSOLE_PATH, _file_handler("index.html")),
            *pages,
            Route(f"{CONSOLE_PATH}/login", self.log_in, methods=["POST"]),
            Route(f"{CONSOLE_PATH}/logout", self.log_out, methods=["POST"]),
            Route(f"{CONSOLE_PATH}/stream", self.stream),
            Route(f"{CONSOLE_PATH}/explain", self.explain),
            Route(f"{CONSOLE_PATH}/data/{{name}}", self.read),
            Route(f"{CONSOLE_PATH}/actions/{{name}}", self.act, methods=["POST"]),
        ]

    def end_streams(self) -> None:
        """End the open streams, and every later one, with the next frame: the server stops and waits for them."""
        self._is_ending = True

    async def log_in(self, request: Request) -> Response:
        """Keep the key of a person in a cookie."""
        _check_origin(request)
        key = (await _read(request, Login)).key.strip()
        self._access.check(f"Bearer {key}", "read")
        response = Response(status_code=204)
        # The browser's own address says whether it reached this server, or a load balancer before it, over TLS.
        is_secure = request.headers.get("origin", "").startswith("https:")
        response.set_cookie(COOKIE, key, path=CONSOLE_PATH, secure=is_secure, httponly=True, samesite="strict")
        return response

    async def log_out(self, request: Request) -> Response:
        """Take the cookie back."""
        _check_origin(request)
        response = Response(status_code=204)
        response.delete_cookie(COOKIE, path=CONSOLE_PATH, httponly=True, samesite="strict")
        return response

    async def read(self, request: Request) -> Response:
        """Answer with the data of a page."""
        self._check(request, "read")
        answer = self._answers.get(request.path_params["name"])
        if answer is None:
            raise RequestError(404, "the console has no such data")
        return Response(_encode(answer(request)), media_type=JSON)

    async def explain(self, request: Request) -> Response:
        """Answer with the explanation of a decision. The explanation makes the decision again from the log."""
        self._check(request, "read")
        return Response(await self._service.explain(request.query_params.get("id", "")), media_type=JSON)

    async def act(self, request: Request) -> Response:
        """Do a confirmed action of an admin."""
        _check_origin(request)
        self._check(request, "admin")
        if not hmac.compare_digest(request.headers.get(TOKEN_HEADER, "").encode(), self._token(request).encode()):
            raise RequestError(403, "the token of the page is missing or old: load the page again")
        action = self._actions.get(request.path_params["name"])
        if action is None:
            raise RequestError(404, "the console has no such action")
        return Response(_encode(await action(await _read(request, Action))), media_type=JSON)

    async def stream(self, request: Request) -> Response:
        """Answer with frames of live events, as server-sent events."""
        self._check(request, "read")
        if self._streams >= MAX_STREAMS:
            raise RequestError(503, f"{MAX_STREAMS} pages are open already", headers={"Retry-After": "5"})
        frames = self._frames(request.headers.get("last-event-id", ""))
        return StreamingResponse(frames, media_type="text/event-stream")

    async def _frames(self, event_id: str) -> AsyncGenerator[bytes]:
        """Yield frames.

        Args:
            event_id: `GENERATION-CURSOR` of the former frame; empty, or of another state, for the first frame.
        """
        generation, _, text = event_id.partition("-")
        cursor = int(text) if text.isascii() and text.isdigit() and len(text) < 16 else 0
        # A slow reader slows this loop alone: a frame is made only when the former one is handed over.
        self._streams += 1
        try:
            yield b"retry: 500\n\n"
            ends_at = time.monotonic() + STREAM_SECONDS
            while time.monotonic() < ends_at and not self._is_ending:
                state = self._console.touch()
                if state.generation != generation:
                    generation, cursor = state.generation, 0
                frame = state.frame(cursor, time.time())
                cursor = frame["cursor"]
                yield b"id: %b-%d\ndata: %b\n\n" % (generation.encode(), cursor, _encode(frame))
                await asyncio.sleep(FRAME_SECONDS)
        finally:
            self._streams -= 1

    def _session(self, request: Request) -> dict[str, Any]:
        key = self._check(request, "read")
        return {
            "name": key.name,
            "scopes": key.scopes,
            "needs_key": self._access.needs_keys,
            "has_shop": self._console.has_shop,
            "token": self._token(request),
        }

    def _user(self, request: Request) -> dict[str, Any]:
        return self._console.touch().story(request.query_params.get("id", ""))

    def _decision(self, request: Request) -> dict[str, Any]:
        state = self._console.touch()
        moment = state.moments.by_id(request.query_params.get("id", ""))
        if moment is None:
            raise RequestError(404, "the console does not remember this decision")
        return {"moment": moment.encode(), "items": state.describe([moment])}

    def _describe(self, request: Request) -> dict[str, Any]:
        return self._console.touch().describe_items(request.query_params.getlist("id")[:DESCRIBED_ITEMS])

    def _outcomes(self, request: Request) -> dict[str, Any]:
        del request
        state = self._console.touch()
        campaigns = state.outcomes.campaigns(time.time())
        item_ids = {campaign["item_id"] for campaign in campaigns.values()}
        return {
            "since_ms": state.status.since_ms,
            "variants": state.outcomes.variants(),
            "placements": state.outcomes.placements(),
            "settled": state.settled.report(),
            "campaigns": campaigns,
            "offers": state.campaigns,
            "budgets": state.budgets.campaigns(),
            "items": state.describe_items(item_ids | {offer.item_id for offer in state.campaigns.values()}),
        }

    def _rollouts(self, request: Request) -> dict[str, Any]:
        del request
        state = self._console.touch()
        return {"rollouts": self._console.rollouts(int(time.time() * 1000)), "versions": state.workers.versions()}

    def _health(self, request: Request) -> dict[str, Any]:
        del request
        state, now = self._console.touch(), time.time()
        p50, p99 = state.rates.percentiles(0.5, 0.99)
        return {
            "now_ms": int(now * 1000),
            "gateway": self._service.health(),
            "status": state.status,
            "latency_ms": {"p50": p50, "p99": p99},
            "series": {name: state.rates.series(name, now) for name in ("events", "decisions", "dead letters")},
            "totals": dict(state.rates.totals),
            "workers": state.workers.workers(),
            "dead_letters": state.dead_letters.report(),
            "moments": len(state.moments),
            "catalogue": len(state.catalogue),
        }

    def _item(self, request: Request) -> dict[str, Any]:
        state, item_id = self._console.touch(), request.query_params.get("id", "")
        counts = state.items.report(item_id)
        if counts is None and item_id not in state.catalogue:
            raise RequestError(404, "the console has read no record of this item")
        sources = [name for table in ("shown_beside", "clicked_beside") for name in (counts or {}).get(table, {})]
        return {
            "item_id": item_id,
            "catalogue": state.catalogue.get(item_id),
            "counts": counts,
            "items": state.describe_items([item_id, *sources]),
        }

    def _items(self, request: Request) -> dict[str, Any]:
        del request
        state = self._console.touch()
        ranked = state.items.most_clicked(ITEMS_SHOWN)
        return {"ranked": ranked, "items": state.describe_items(item_id for item_id, *_ in ranked)}

    def _shop(self, request: Request) -> dict[str, Any]:
        """Return the categories, and the items of a category or of a search; without either, the most clicked items."""
        state = self._console.touch()
        category, query = request.query_params.get("category", ""), request.query_params.get("query", "").lower()
        offered = [item for item in state.catalogue.values() if not item.hidden and item.title]
        chosen = [
            item
            for item in offered
            if (not category or item.category == category) and (not query or query in item.title.lower())
        ]
        if category or query:
            chosen.sort(key=lambda item: item.title)
        else:
            chosen.sort(key=lambda item: -state.items.clicks(item.item_id))
        return {
            "categories": list(dict.fromkeys(item.category for item in offered if item.category)),
            "items": chosen[:SHOP_ITEMS],
        }

    async def _erase(self, action: Action) -> dict[str, Any]:
        if not action.user_id:
            raise RequestError(400, "no user is named")
        event = Erase(event_id=str(uuid.uuid4()), user_id=action.user_id, ts=int(time.time() * 1000))
        stored = await self._service.store([IncomingEvent(event, encode_event(event))])
        return {"event_id": stored[0].event_id}

    async def _change_rollout(self, step: str, action: Action) -> dict[str, Any]:
        reason = action.reason.strip() or "in the console"
        changed = await self._console.change_rollout(action.rollout, step, action.changed_at, reason)
        return {"rollout": changed}

    def _check(self, request: Request, scope: Scope) -> ApiKey:
        cookie = request.cookies.get(COOKIE)
        return self._access.check(f"Bearer {cookie}" if cookie else request.headers.get("authorization"), scope)

    def _token(self, request: Request) -> str:
        """Return the token of a person's pages. Only pages of this server can read the token.

        The token follows from the key, so every gateway has the same token. A gateway without keys draws a token.
        """
        key = request.cookies.get(COOKIE) or request.headers.get("authorization") or ""
        secret = key.encode() if self._access.needs_keys else self._secret
        return hmac.digest(secret, b"clickscore console", hashlib.sha256).hex()


def _check_origin(request: Request) -> None:
    """Check whether a page of this server sent a request.

    Raises:
        RequestError: Another page or program sent the request.
    """
    site = request.headers.get("sec-fetch-site")  # browsers set it, and pages cannot
    origin = request.headers.get("origin", "").partition("://")[2]
    is_own = site == "same-origin" if site else bool(origin) and origin == request.headers.get("host")
    if not is_own:
        raise RequestError(403, "actions of the console come from its own pages alone")
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != JSON:
        raise RequestError(415, f"send the header `Content-Type: {JSON}`")


async def _read(request: Request, kind: type[Any]) -> Any:  # noqa: ANN401 (an instance of `kind`)
    """Return the body of a request as an instance of `kind`.

    Raises:
        RequestError: The body is too large, or has another form.
    """
    try:
        return bounded_depth(msgspec.json.Decoder(kind).decode)(await read_body(request, MAX_ACTION_BYTES))
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise RequestError(400, str(exc)) from exc


def _file_handler(name: str) -> Callable[[Request], Awaitable[Response]]:
    file = page_files()[name]

    async def handle(request: Request) -> Response:
        del request
        return Response(file.content, media_type=file.media_type, headers=PAGE_HEADERS)

    return handle


async def _redirect(request: Request) -> Response:
    del request
    return RedirectResponse(CONSOLE_PATH)
