"""Schema registry: ask a registry with Confluent's API for the schemas of records.

https://docs.confluent.io/platform/current/schema-registry/develop/api.html. A schema id is immutable: the registry
gives the same schema for it for ever.
"""

import asyncio
import base64
import time
from collections.abc import Callable
from typing import Any, Literal, Self
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import aiohttp
import msgspec

from clickscore.schemas.errors import ClickscoreError
from clickscore.stream.errors import BrokerError, SettingsError
from clickscore.stream.kafka.client import ca_context
from clickscore.stream.settings import KafkaSettings

MAX_ANSWER_BYTES = 1024 * 1024
"""Largest answer of the registry that is read, bytes."""
MAX_REFERENCES = 64
"""Most schemas that a schema may refer to, directly or through others."""
REQUEST_S = 10.0
"""Time limit of a request, s."""
RETRY_S = 0.2
"""Pause between two attempts while the registry does not answer, s."""
SCHEMA_NOT_FOUND = 40403
"""Code of the registry for an unknown schema id."""

Kind = Literal["AVRO", "PROTOBUF", "JSON"]


class Reference(msgspec.Struct, frozen=True):
    """A schema on which another depends."""

    name: str
    """Name by which the schema imports it: a full name in Avro, a file in Protobuf."""
    subject: str
    version: int


class _Answer(msgspec.Struct, frozen=True, rename={"kind": "schemaType"}):
    schema: str
    kind: Kind = "AVRO"
    references: tuple[Reference, ...] = ()


class _Fault(msgspec.Struct, frozen=True):
    error_code: int
    message: str = ""


class RegisteredSchema(msgspec.Struct, frozen=True):
    """A schema with all that it depends on."""

    kind: Kind
    text: str
    """The schema: JSON, or a descriptor of Protobuf in base64."""
    dependencies: tuple[tuple[str, str], ...] = ()
    """Name and text of each dependency, in the order in which they can be read."""


class UnknownSchemaError(ClickscoreError):
    """The registry has no schema of this id, or one that cannot be used. The record becomes a dead letter."""


class SchemaRegistry:
    """A client of a registry."""

    def __init__(
        self,
        settings: KafkaSettings,
        session: aiohttp.ClientSession,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Use an open session.

        Args:
            settings: Address and login of the registry, and how long to wait for it.
            session: Session for the requests.
            monotonic: Returns a time that never goes back, s.
        """
        self._url, _ = split_login(settings.schema_registry)
        self._wait_s = settings.broker_wait_ms / 1000
        self._session = session
        self._monotonic = monotonic

    @classmethod
    def open(cls, settings: KafkaSettings) -> tuple[Self, aiohttp.ClientSession]:
        """Return a client, and the session to close.

        Raises:
            SettingsError: The address is no URL, there are two logins, or the file of certificates cannot be read.
        """
        _, login = split_login(settings.schema_registry)
        headers = {"Accept": "application/vnd.schemaregistry.v1+json, application/json"}
        if settings.schema_registry_username:
            if login:
                message = "schema_registry has a login, and schema_registry_username names one too: remove one of them"
                raise SettingsError(message)
            login = f"{settings.schema_registry_username}:{settings.schema_registry_password}"
        if login:
            headers["Authorization"] = "Basic " + base64.b64encode(login.encode()).decode()
        session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=REQUEST_S),
            connector=aiohttp.TCPConnector(ssl=ca_context(settings.ssl_cafile)),
            headers=headers,
        )
        return cls(settings, session), session

    async def find(self, schema_id: int) -> RegisteredSchema:
        """Return the schema of an id, with its dependencies.

        Raises:
            UnknownSchemaError: The registry has no such schema, or one that cannot be used.
            BrokerError: The registry does not answer within `broker_wait_ms`.
            SettingsError: The registry refuses this client, or the URL is that of something else.
        """
        path = f"/schemas/ids/{schema_id}"
        answer = await self._get(path)
        is_protobuf = answer.kind == "PROTOBUF"
        if is_protobuf:
            answer = await self._get(path, is_serialized=True)
        dependencies: dict[str, str] = {}
        await self._add_dependencies(answer.references, dependencies, is_serialized=is_protobuf, parents=())
        return RegisteredSchema("PROTOBUF" if is_protobuf else answer.kind, answer.schema, tuple(dependencies.items()))

    async def _add_dependencies(
        self,
        references: tuple[Reference, ...],
        dependencies: dict[str, str],
        *,
        is_serialized: bool,
        parents: tuple[str, ...],
    ) -> None:
        """Add references, each behind those that it depends on itself.

        Args:
            references: References of a schema.
            dependencies: Receives the texts by name.
            is_serialized: Whether to ask for descriptors of Protobuf.
            parents: Names of the schemas that led here.
        """
        for reference in references:
            if reference.name in dependencies:
                continue
            if reference.name in parents or len(dependencies) + len(parents) >= MAX_REFERENCES:
                message = f"the references of the schema form a circle, or are more than {MAX_REFERENCES}"
                raise UnknownSchemaError(message)
            path = f"/subjects/{quote(reference.subject, safe='')}/versions/{reference.version}"
            answer = await self._get(path, is_serialized=is_serialized)
            await self._add_dependencies(
                answer.references, dependencies, is_serialized=is_serialized, parents=(*parents, reference.name)
            )
            dependencies[reference.name] = answer.schema

    async def _get(self, path: str, *, is_serialized: bool = False) -> _Answer:
        """Return an answer of the registry; ask again while it does not answer.

        Args:
            path: Path of the resource.
            is_serialized: Whether to ask for a descriptor of Protobuf in base64.
        """
        deadline = self._monotonic() + self._wait_s
        while True:
            try:
                status, body = await self._request(path, {"format": "serialized"} if is_serialized else {})
            except (aiohttp.ClientError, TimeoutError, OSError) as exc:
                fault = str(exc) or type(exc).__name__
            else:
                if status == 200:
                    return _read_answer(body)
                self._raise_refusal(status, body)
                fault = f"status {status}"
            if self._monotonic() >= deadline:
                message = (
                    f"the schema registry at {self._url} does not answer ({fault}). Nothing is committed; start the "
                    "relay again once the registry answers"
                )
                raise BrokerError(message)
            await asyncio.sleep(RETRY_S)

    async def _request(self, path: str, query: dict[str, str]) -> tuple[int, bytes]:
        async with self._session.get(self._url + path, params=query, allow_redirects=False) as response:
            body = bytearray()
            async for piece in response.content.iter_any():
                body += piece
                if len(body) > MAX_ANSWER_BYTES:
                    message = f"the registry's answer is larger than {MAX_ANSWER_BYTES} bytes"
                    raise UnknownSchemaError(message)
            return response.status, bytes(body)

    def _raise_refusal(self, status: int, body: bytes) -> None:
        """Raise the error of an answer that another attempt would not change."""
        if status in (401, 403):
            message = (
                f"the schema registry at {self._url} refuses this client (status {status}): correct "
                "schema_registry_username and schema_registry_password"
            )
            raise SettingsError(message)
        if status >= 500 or status == 429:
            return
        try:
            fault = msgspec.json.decode(body, type=_Fault)
        except (msgspec.DecodeError, RecursionError):
            fault = None
        if status in (400, 404, 422) and fault is not None:
            message = (
                "the registry does not know the schema id" if fault.error_code == SCHEMA_NOT_FOUND else fault.message
            )
            raise UnknownSchemaError(message)
        message = f"{self._url} is no schema registry with Confluent's API (status {status}): correct schema_registry"
        raise SettingsError(message)


def split_login(url: str) -> tuple[str, str]:
    """Return the URL of a registry without user and password, for requests and messages, and both as `user:password`.

    Raises:
        SettingsError: The text is no URL of HTTP.
    """
    message = "schema_registry must be an http or https URL, such as http://registry:8081"
    try:
        parts = urlsplit(url.rstrip("/"))
    except ValueError as exc:
        raise SettingsError(message) from exc
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SettingsError(message)
    login, _, address = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=address)), unquote(login)


def _read_answer(body: bytes) -> _Answer:
    try:
        return msgspec.json.decode(body, type=_Answer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        message = f"the registry's answer cannot be used: {exc}"
        raise UnknownSchemaError(message) from exc


def descriptor_bytes(text: str) -> bytes:
    """Return the bytes of a descriptor in base64.

    Raises:
        UnknownSchemaError: The text is no base64.
    """
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as exc:
        message = "the registry gave no serialized descriptor of Protobuf"
        raise UnknownSchemaError(message) from exc


def json_value(text: str) -> Any:  # noqa: ANN401 (a value of JSON)
    """Return the value of a schema in JSON.

    Raises:
        UnknownSchemaError: The schema is nested too deeply.
    """
    try:
        return msgspec.json.decode(text)
    except RecursionError as exc:
        message = "the schema is nested too deeply"
        raise UnknownSchemaError(message) from exc
    except msgspec.DecodeError:
        return text  # Avro has names of types without quotes in some registries
