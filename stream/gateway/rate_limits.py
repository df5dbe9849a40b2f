"""Rate limits: a token bucket for each API key."""


class RateLimits:
    """Token buckets: each key gains `rate` tokens a second, up to one second's worth, and a request takes tokens.

    A request may take more tokens than remain, if a token remains. The key then waits until the debt is paid. So a list
    of events may exceed the bucket, and the long-run rate holds.
    """

    def __init__(self) -> None:
        self._levels: dict[str, tuple[float, float]] = {}  # tokens, and the time of the last change in s

    def wait_seconds(self, key_id: str, rate: float, now: float) -> float:
        """Return the time until a key may send a request, s; 0 if it may now.

        Args:
            key_id: Id of the key.
            rate: Tokens that the key gains, 1/s.
            now: Monotonic time, s.
        """
        level = self._level(key_id, rate, now)
        return 0.0 if level >= 1 else (1 - level) / rate

    def take(self, key_id: str, rate: float, now: float, tokens: int) -> None:
        """Take the tokens of a request.

        Args:
            key_id: Id of the key.
            rate: Tokens that the key gains, 1/s.
            now: Monotonic time, s.
            tokens: Number of tokens.
        """
        self._levels[key_id] = (self._level(key_id, rate, now) - tokens, now)

    def _level(self, key_id: str, rate: float, now: float) -> float:
        capacity = max(rate, 1.0)
        level, changed_at = self._levels.get(key_id, (capacity, now))
        return min(capacity, level + (now - changed_at) * rate)
