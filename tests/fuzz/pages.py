"""Pages: odd, foreign and half requests; the server answers each of them, or cuts it off in its time."""

import asyncio
import random
from collections import Counter
from collections.abc import Sequence

from clickscore.stream.worker.web import CONNECTION_SECONDS
from tests.fuzz.judge import FaultError, Outcomes
from tests.fuzz.mutation import mutated_bytes

STUCK_SECONDS = 3 * CONNECTION_SECONDS
"""Time until a connection counts as stuck: a busy machine may be late with cutting it off."""
CONNECTIONS = 100
"""Connections at a time."""

_METHODS = (
    "GET",
    "GET",
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "DELETE",
    "OPTIONS",
    "TRACE",
    "CONNECT",
    "get",
    "",
    "G\0T",
    "PRI",
)
_PATHS = (
    "/health", "/metrics", "/", "/table/", "/router/", "/health?x=1", "//health", "/../health", "/%2e", "/%00", "*",
    "http://evil.example/health", "/health#x", "/" + "x" * 9_000, "/\u202e", "", "/metrics/../health", "/health\tx",
)  # fmt: skip
_HOSTS = (
    "127.0.0.1", "localhost:6066", "evil.example", "[::1", "[::1]:99999999", "", "a, b", "127.0.0.1:x", "0x7f.1",
    "127.0.0.1.evil.example", "127.1", "LOCALHOST", "localhost\0", "\u0131", "x" * 5_000, "127.0.0.1\r\nHost: evil",
)  # fmt: skip
_VERSIONS = ("HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/0.9", "HTTP/2.0", "HTTP/9.9", "", "http/1.1", "HTTP/1.1 x")
_HEADERS = (
    "Content-Length: 50000000", "Content-Length: -1", "Content-Length: 1e3", "Content-Length: 0\r\nContent-Length: 5",
    "Transfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: 3", "Expect: 100-continue",
    "Connection: keep-alive", "Connection: Upgrade\r\nUpgrade: websocket", "Upgrade: h2c", "X: " + "y" * 9_000,
    "Range: bytes=0-1", "Accept-Encoding: gzip", "Authorization: Basic \xff", " folded", "no colon", ": no name",
    "Origin: http://evil.example", "X-Forwarded-Host: evil.example", "Cookie: " + "a=b; " * 500,
)  # fmt: skip
_BODIES = (b"", b"", b"", b"begin", b"5\r\nhello\r\n0\r\n\r\n", b"FFFFFFFFFFFFFFFF\r\n", b"-1\r\n", b"\0" * 70_000)


def request(chance: random.Random) -> bytes:
    """Return the bytes of a request, good, odd or broken."""
    if chance.random() < 0.03:
        return chance.choice((b"", b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03", chance.randbytes(50), b"\n" * 100))
    good = ("GET", chance.choice(("/health", "/metrics")), "HTTP/1.1", "127.0.0.1")
    odd = (_METHODS, _PATHS, _VERSIONS, _HOSTS)
    method, path, version, name = (
        chance.choice(others) if chance.random() < 0.15 else usual for usual, others in zip(good, odd, strict=True)
    )
    lines = [
        f"{method} {path} {version}",
        *[f"Host: {name}"] * chance.choice((0, *(1,) * 8, 2)),
        *chance.sample(_HEADERS, chance.choice((0, 0, 0, 1, 2))),
    ]
    text = chance.choice(("\r\n", "\r\n", "\r\n", "\n")).join((*lines, "", "")).encode(errors="surrogatepass")
    text += chance.choice(_BODIES)
    kind = chance.random()
    if kind < 0.15:
        return mutated_bytes(chance, text)
    return text[: chance.randrange(len(text))] if kind < 0.17 else text


async def fuzz_pages(seed: str, count: int, host: str, port: int) -> Outcomes:
    """Send requests to a server, some at a time, and return the outcome of each.

    Args:
        seed: Seed of the requests.
        count: Number of requests.
        host: Address of the server.
        port: Port of the server.

    Raises:
        FaultError: A connection is stuck, or an answer is no answer of HTTP.
    """
    outcomes: Outcomes = Counter()
    numbers = iter(range(count))

    async def client() -> None:
        for number in numbers:
            text = request(random.Random(f"{seed}:{number}"))
            try:
                answer = await asyncio.wait_for(_exchange(text, host, port), STUCK_SECONDS)
            except TimeoutError:
                raise FaultError(f"stuck after {STUCK_SECONDS} s: {text[:500]!r}") from None
            outcomes[answer_outcome(text, answer)] += 1

    await asyncio.gather(*(client() for _ in range(CONNECTIONS)))
    return outcomes


def answer_outcome(text: bytes, answer: bytes) -> str:
    """Return the outcome of a request: a page, a refusal, or nothing for a request that was cut off."""
    if not answer:
        return "cut off"
    status = answer.split(b" ", 2)[1:2]
    if not answer.startswith(b"HTTP/") or not status or not status[0].isdigit():
        raise FaultError(f"{text[:500]!r} is answered by {answer[:500]!r}")
    if status[0] in (b"200", b"503"):
        return "pages"
    if int(status[0]) >= 500 and status[0] != b"505":
        raise FaultError(f"{text[:500]!r} fails: {answer[:500]!r}")
    return "refused"


async def _exchange(text: bytes, host: str, port: int) -> bytes:
    """Return all bytes that a server sends until it closes the connection."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(text)
        return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


def shares(total: int, weights: Sequence[int]) -> list[int]:
    """Return whole numbers in the proportion of weights that add up to a total."""
    ends = [total * sum(weights[: index + 1]) // sum(weights) for index in range(len(weights))]
    return [end - begin for begin, end in zip((0, *ends), ends, strict=False)]
