"""API keys: make, store and check the keys of the gateway. Only a hash of a key is stored."""

import base64
import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from clickscore.schemas.errors import OutputFileError
from clickscore.stream.errors import SettingsError

Scope = Literal["events", "read", "admin"]
"""Right of a key.

* events: send events.
* read: read and explain decisions, and wait for the decision on an event.
* admin: read the metrics of the gateway, erase users, and promote and roll back rollouts in the console.
"""

KEY_PREFIX, USER_KEY_PREFIX = "ck", "cku"
"""Beginning of every key and every user key, by which scanners of source code can recognise a leaked key."""
SECRET_BYTES = 32
"""Random bytes of a key. A secret of 256 bits needs no slow hash and no salt: nobody can guess it."""


_USER_KEY = re.compile(
    rf"(?P<body>{USER_KEY_PREFIX}_(?P<key_id>[0-9a-f]+)_(?P<expires_at>\d{{1,15}})_(?P<user>[\w=-]*))"
    r"_(?P<signature>[0-9a-f]{64})",
    re.ASCII,
)


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """A stored key."""

    key_id: str
    """Public part of the key, for the lookup."""
    name: str
    """User of the key, for people."""
    scopes: tuple[Scope, ...]
    sha256: str
    """SHA-256 of the secret part, in hex."""
    created_at: str
    """Time of creation, ISO 8601, UTC."""
    rate: int | None = None
    """Requests and events a second; None for `gateway_rate`."""


class NewKey(NamedTuple):
    """A new key."""

    stored: ApiKey
    text: str
    """The key itself, which is shown once and never stored."""


def make_key(name: str, scopes: Iterable[Scope], created_at: str, rate: int | None = None) -> NewKey:
    """Return a new random key.

    Args:
        name: User of the key.
        scopes: Rights of the key.
        created_at: Time of creation, ISO 8601.
        rate: Requests and events a second; None for `gateway_rate`.
    """
    key_id, secret = secrets.token_hex(6), secrets.token_urlsafe(SECRET_BYTES)
    stored = ApiKey(
        key_id=key_id,
        name=name,
        scopes=tuple(sorted(set(scopes))),
        sha256=_hash(secret),
        created_at=created_at,
        rate=rate,
    )
    return NewKey(stored, f"{KEY_PREFIX}_{key_id}_{secret}")


class Caller(NamedTuple):
    """The sender of a request."""

    key: ApiKey
    user_id: str | None = None
    """The only user about whom the request may speak; None for all users."""

    @property
    def is_public(self) -> bool:
        """Whether a web page may hold the key for everybody to read: a key of one user, or with `events` alone."""
        return self.user_id is not None or self.key.scopes == ("events",)


def make_user_key(key_text: str, user_id: str, expires_at: int) -> str:
    """Return a key for one user, derived from an API key: it opens what the API key opens, for this user alone.

    A web page can hold such a key. The signature is HMAC-SHA-256 with the stored hash of the API key.

    Args:
        key_text: The API key.
        user_id: The user.
        expires_at: Time from which on the user key is refused, s since 1970.

    Raises:
        SettingsError: The text is no API key.
    """
    prefix, key_id, secret = (*key_text.split("_", 2), "", "")[:3]
    if prefix != KEY_PREFIX or not secret:
        message = f"this is no API key: `clickscore gateway key create` prints one, which begins with {KEY_PREFIX}_"
        raise SettingsError(message)
    user = base64.urlsafe_b64encode(user_id.encode()).decode()
    body = f"{USER_KEY_PREFIX}_{key_id}_{expires_at}_{user}"
    return f"{body}_{_sign(_hash(secret), body)}"


class KeyRing:
    """The keys of a gateway, by id."""

    def __init__(self, keys: Iterable[ApiKey]) -> None:
        self._keys = {key.key_id: key for key in keys}

    def __len__(self) -> int:
        """Return the number of keys."""
        return len(self._keys)

    def match(self, text: str) -> ApiKey | None:
        """Return the stored key of a key's text; None for a wrong key.

        The comparison takes the same time wherever the secrets differ.
        """
        prefix, _, rest = text.partition("_")
        key_id, _, secret = rest.partition("_")
        stored = self._keys.get(key_id)
        is_equal = hmac.compare_digest(_hash(secret), stored.sha256 if stored else _hash(""))
        return stored if stored and is_equal and prefix == KEY_PREFIX else None

    def match_user_key(self, text: str, now: float) -> Caller | None:
        """Return the caller with a user key; None for a wrong or expired one.

        Args:
            text: The user key.
            now: Wall-clock time, s.
        """
        match = _USER_KEY.fullmatch(text)
        stored = self._keys.get(match["key_id"]) if match else None
        if not match or not stored or not hmac.compare_digest(_sign(stored.sha256, match["body"]), match["signature"]):
            return None
        try:
            user_id = base64.urlsafe_b64decode(match["user"]).decode()
        except ValueError:  # a shop signs its user keys itself, and may do it wrong
            return None
        return Caller(stored, user_id) if now < int(match["expires_at"]) else None


_decode_keys = msgspec.json.Decoder(list[ApiKey]).decode


def read_keys(path: Path) -> list[ApiKey]:
    """Return the keys of a file.

    Raises:
        SettingsError: The file cannot be read, or has another form.
    """
    try:
        return _decode_keys(path.read_bytes())
    except OSError as exc:
        message = f"gateway_keys_file ({path}) cannot be read: {exc.strerror}. `clickscore gateway key create` makes it"
        raise SettingsError(message) from exc
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        message = f"gateway_keys_file ({path}) is no file of `clickscore gateway key create`: {exc}"
        raise SettingsError(message) from exc


def write_keys(path: Path, keys: Sequence[ApiKey]) -> None:
    """Write a file of keys that only its owner can read. A reader sees the former or the new file, never a part.

    Raises:
        OutputFileError: The file cannot be written.
    """
    text = msgspec.json.format(msgspec.json.encode(keys), indent=2)
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:  # noqa: PTH123 (an open file)
            file.write(text + b"\n")
        part.replace(path)
    except OSError as exc:
        part.unlink(missing_ok=True)
        message = f"{path} cannot be written: {exc.strerror}. Name another file with --gateway-keys-file"
        raise OutputFileError(message) from exc


def _sign(sha256: str, body: str) -> str:
    """Return the signature of the body of a user key.

    Args:
        sha256: Stored hash of the API key.
        body: The user key up to the signature.
    """
    return hmac.new(sha256.encode(), body.encode(errors="replace"), hashlib.sha256).hexdigest()


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()
