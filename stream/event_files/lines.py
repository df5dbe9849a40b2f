"""Lines: a line or row of an event file, as a record for the topic or as an error."""

import msgspec


class Line(msgspec.Struct, frozen=True, gc=False):
    """A line of a file: a record for the topic, or an error."""

    number: int
    """Number of the line, from 1. The header counts as a line."""
    value: bytes = b""
    """Value of the record."""
    key: bytes | None = None
    """User id. A broken line of a `clickscore` file may have no user id."""
    ts: int | None = None
    """Event time in ms, if the line has a time."""
    error: str | None = None
    """Reason why the line gives no record."""

    @property
    def routing(self) -> bytes:
        """Bytes for the choice of the partition: the key, or the value of a record without a key.

        The value of an equal line is equal, so a second run sends each record to the same partition.
        """
        return self.value if self.key is None else self.key
