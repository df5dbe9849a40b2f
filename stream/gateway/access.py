"""Access: check API key, scope and rate of a request."""

import math
import time
from pathlib import Path

from clickscore.stream.errors import RequestError, SettingsError
from clickscore.stream.gateway.api_keys import USER_KEY_PREFIX, ApiKey, Caller, KeyRing, Scope, read_keys
from clickscore.stream.gateway.rate_limits import RateLimits
from clickscore.stream.host_names import is_loopback
from clickscore.stream.settings import GatewaySettings

RELOAD_SECONDS = 5.0
"""Time between two looks at the file of keys, s: a removed key works so long at most."""

_LOCAL = ApiKey(key_id="", name="loopback", scopes=("admin", "events", "read"), sha256="", created_at="")
"""Key of every request to a gateway without keys on loopback, without a rate."""


class Access:
    """Checks the keys of requests."""

    def __init__(self, settings: GatewaySettings) -> None:
        """Read the keys.

        Raises:
            SettingsError: The file of keys is wrong, or keys are missing although the gateway listens outside loopback.
        """
        self._path = Path(settings.gateway_keys_file) if settings.gateway_keys_file else None
        if self._path is None and not is_loopback(settings.gateway_host):
            message = (
                f"gateway_host ({settings.gateway_host}) can be reached from outside, so the gateway needs keys: make "
                "one with `clickscore gateway key create NAME`, and name the file by gateway_keys_file"
            )
            raise SettingsError(message)
        self._default_rate = settings.gateway_rate
        self._limits = RateLimits()
        self._keys = KeyRing(read_keys(self._path)) if self._path else None
        self._changed_at = self._modification_time()

    @property
    def needs_keys(self) -> bool:
        """Whether a request needs a key."""
        return self._path is not None

    def reload(self) -> bool:
        """Read a changed file of keys again, and return whether the file has changed.

        Raises:
            SettingsError: The file cannot be read any more.
        """
        changed_at = self._modification_time()  # before the read, so that a change during the read is noticed
        if self._path and changed_at != self._changed_at:
            self._keys = KeyRing(read_keys(self._path))
            self._changed_at = changed_at
            return True
        return False

    def check(self, authorization: str | None, scope: Scope) -> ApiKey:
        """Return the key of a request that may speak about all users, and take a token of the key's rate.

        Args:
            authorization: Value of the header `Authorization`.
            scope: Right that the request needs.

        Raises:
            RequestError: The key is missing, wrong, of one user, without the right, or over its rate.
        """
        caller = self.check_caller(authorization, scope)
        if caller.user_id is not None:
            raise RequestError(403, "a user key opens the user's own events and recommendations alone")
        return caller.key

    def check_caller(self, authorization: str | None, scope: Scope) -> Caller:
        """Return the sender of a request, who may be one user, and take a token of the key's rate.

        Args:
            authorization: Value of the header `Authorization`.
            scope: Right that the request needs.

        Raises:
            RequestError: The key is missing, wrong, without the right, or over its rate.
        """
        caller = self._identify(authorization)
        self._spend(caller.key, scope)
        return caller

    def _spend(self, key: ApiKey, scope: Scope) -> None:
        """Check the right of a key, and take a token of its rate.

        Raises:
            RequestError: The key lacks the right, or is over its rate.
        """
        self.check_scope(key, scope)
        if key is _LOCAL:
            return
        wait_s = self._limits.wait_seconds(key.key_id, self._rate(key), time.monotonic())
        if wait_s:
            headers = {"Retry-After": str(math.ceil(wait_s))}
            message = f"over the rate of this key ({self._rate(key)}/s): try again in {wait_s:.1f} s"
            raise RequestError(429, message, headers=headers)
        self.take(key, 1)

    def check_scope(self, key: ApiKey, scope: Scope) -> None:
        """Check that a key has a right.

        Raises:
            RequestError: The key lacks the right.
        """
        if scope not in key.scopes:
            raise RequestError(403, f"this key has no scope {scope!r}: its scopes are {', '.join(key.scopes)}")

    def check_user(self, caller: Caller, user_id: str) -> None:
        """Check that a caller may speak about a user.

        Raises:
            RequestError: The caller is another user.
        """
        if caller.user_id not in (None, user_id):
            raise RequestError(403, "this user key is of another user")

    def take(self, key: ApiKey, tokens: int) -> None:
        """Take further tokens of a key's rate, for the events of a request."""
        if key is not _LOCAL:
            self._limits.take(key.key_id, self._rate(key), time.monotonic(), tokens)

    def _identify(self, authorization: str | None) -> Caller:
        if self._keys is None:
            return Caller(_LOCAL)
        method, _, text = (authorization or "").partition(" ")
        text = text.strip() if method.lower() == "bearer" else ""
        if text.startswith(f"{USER_KEY_PREFIX}_"):
            caller = self._keys.match_user_key(text, time.time())
        else:
            caller = Caller(key) if (key := self._keys.match(text)) else None
        if caller is None:
            headers = {"WWW-Authenticate": 'Bearer realm="clickscore"'}
            message = "an API key is missing, wrong or expired: send the header `Authorization: Bearer KEY`"
            raise RequestError(401, message, headers=headers)
        return caller

    def _rate(self, key: ApiKey) -> int:
        return key.rate or self._default_rate

    def _modification_time(self) -> int | None:
        """Return the modification time of the file of keys, ns; absent without a file."""
        try:
            return self._path.stat().st_mtime_ns if self._path else None
        except OSError:
            return None
