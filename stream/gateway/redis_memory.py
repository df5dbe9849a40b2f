"""Redis memory: the newest decisions in a Redis server, shared by all gateways, beyond the memory of each."""

import asyncio
import hashlib
import logging
from collections import OrderedDict
from typing import NamedTuple

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from clickscore.stream.errors import RequestError, SettingsError
from clickscore.stream.gateway.decision_memory import DecisionKind
from clickscore.stream.gateway.gateway_metrics import GatewayMetrics
from clickscore.stream.settings import Settings

ANSWER_SECONDS = 1.0
"""Longest wait for an answer of Redis, s."""
CONNECTIONS = 16
"""Open connections to Redis at most; further reads wait for one."""
WRITTEN_AT_ONCE = 500
"""Decisions that one round trip writes: about 1 MB."""
MIN_WAITING = 10_000
"""Decisions that may wait for Redis, also with a smaller `gateway_users`: some seconds of a busy shop, 20 MB."""
RETRY_SECONDS = 1.0
"""Pause after a failure of Redis, s."""

_WRITE = """
local place = redis.call('HMGET', KEYS[1], 'source', 'offset')
if place[1] == ARGV[1] and tonumber(place[2]) >= tonumber(ARGV[2]) then return 0 end
redis.call('HSET', KEYS[1], 'source', ARGV[1], 'offset', ARGV[2], 'value', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 1
"""
"""Write a decision, unless the key has one of the same or a later event of the partition. All gateways write all
decisions, each in an order of its own, and the newest stays."""

_log = logging.getLogger(__name__)


class _Entry(NamedTuple):
    log_id: str
    """`TOPIC-PARTITION-OFFSET` of the answered event, or of the event that erased the user."""
    value: bytes
    """The decision as published; empty for a user who was erased."""


class RedisMemory:
    """Writes decisions to Redis in the background, and reads the newest of a user. `run` must run meanwhile."""

    def __init__(self, settings: Settings, metrics: GatewayMetrics) -> None:
        """Prepare the client; it connects with the first use.

        Args:
            settings: Address of Redis, and limits.
            metrics: Metrics to fill.

        Raises:
            SettingsError: The address has another form.
        """
        gateway = settings.gateway
        try:
            pool = BlockingConnectionPool.from_url(
                gateway.gateway_redis_url,
                max_connections=CONNECTIONS,
                timeout=ANSWER_SECONDS,
                socket_timeout=ANSWER_SECONDS,
                socket_connect_timeout=ANSWER_SECONDS,
                retry=Retry(NoBackoff(), 0),
            )
        except ValueError:
            message = (
                "gateway_redis_url is no address of a Redis server, such as redis://HOST:6379/0; percent-encode the "
                "password"
            )
            raise SettingsError(message) from None  # the text of the cause may have a part of the password
        self._redis = Redis(connection_pool=pool)
        self._write = self._redis.register_script(_WRITE)
        self._prefix = f"clickscore:{settings.kafka.topic_prefix}newest-"
        self._ttl_ms = gateway.gateway_redis_ttl_ms
        self._max_waiting = max(gateway.gateway_users, MIN_WAITING)
        self._waiting: OrderedDict[str, _Entry] = OrderedDict()  # oldest entry first
        self._has_entries = asyncio.Event()
        self._errors = metrics.redis_errors
        metrics.redis_waiting.set_function(lambda: len(self._waiting))

    def put(self, kind: DecisionKind, user_id: str, log_id: str, value: bytes | None) -> None:
        """Note the newest decision of a user; the background writes it. While Redis is away, the oldest go.

        Args:
            kind: Kind of the decision.
            user_id: The user.
            log_id: `TOPIC-PARTITION-OFFSET` of the answered event, or of the event that erased the user.
            value: The decision as published; None for a user who was erased.
        """
        key = self._key(kind, user_id)
        self._waiting[key] = _Entry(log_id, value or b"")
        self._waiting.move_to_end(key)
        if len(self._waiting) > self._max_waiting:
            self._waiting.popitem(last=False)
        self._has_entries.set()

    async def newest(self, kind: DecisionKind, user_id: str) -> bytes | None:
        """Return the newest decision of a user as published; None for an unknown or erased user.

        Args:
            kind: Kind of the decision.
            user_id: The user.

        Raises:
            RequestError: Redis does not answer.
        """
        key = self._key(kind, user_id)
        waiting = self._waiting.get(key)
        if waiting:
            return waiting.value or None
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                value = await self._redis.hget(key, "value")
        except (RedisError, OSError, TimeoutError) as exc:
            self._note_error(exc)
            message = "the shared memory of decisions does not answer: try again"
            raise RequestError(503, message, headers={"Retry-After": "1"}) from exc
        return value if isinstance(value, bytes) and value else None

    async def run(self) -> None:
        """Write noted decisions until the task is cancelled. After a failure of Redis they are written again."""
        try:
            while True:
                await self._has_entries.wait()
                count = min(len(self._waiting), WRITTEN_AT_ONCE)
                batch = dict(self._waiting.popitem(last=False) for _ in range(count))
                try:
                    await self._write_batch(batch)
                except (RedisError, OSError, TimeoutError) as exc:
                    self._note_error(exc)
                    self._put_back(batch)
                    await asyncio.sleep(RETRY_SECONDS)
                if not self._waiting:
                    self._has_entries.clear()
        finally:
            await self._redis.aclose()

    async def _write_batch(self, batch: dict[str, _Entry]) -> None:
        async with asyncio.timeout(ANSWER_SECONDS), self._redis.pipeline(transaction=False) as pipeline:
            for key, (log_id, value) in batch.items():
                source, _, offset = log_id.rpartition("-")
                await self._write([key], [source, offset, value, self._ttl_ms], client=pipeline)
            await pipeline.execute()

    def _put_back(self, batch: dict[str, _Entry]) -> None:
        """Note decisions again, as the oldest, except where a newer one came meanwhile."""
        for key, entry in reversed(batch.items()):
            if key not in self._waiting and len(self._waiting) < self._max_waiting:
                self._waiting[key] = entry
                self._waiting.move_to_end(key, last=False)

    def _note_error(self, error: Exception) -> None:
        self._errors.inc()
        _log.warning("Redis does not answer: %s", type(error).__name__)  # its words may have the address

    def _key(self, kind: DecisionKind, user_id: str) -> str:
        """Return the key of a decision. The key of an erased user stays for a while, so it does not name the user.

        Args:
            kind: Kind of the decision.
            user_id: The user.
        """
        return f"{self._prefix}{kind}:{hashlib.sha256(user_id.encode()).hexdigest()}"
