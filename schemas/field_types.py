"""Field types: ids, times and offsets with their bounds, shared by the records of several topics."""

from typing import Annotated

import msgspec

YEAR_2000_MS = 946_684_800_000
"""Smallest event time, ms. A smaller number is a time in seconds: as seconds it means a time up to the year 31969."""
YEAR_9999_MS = 253_402_300_799_999
"""Largest event time, ms. Times from the year 1978 on exceed this number as microseconds."""

MAX_PRICE = 1e12
"""Largest price of an item: beyond, it is a mistake, and sums with cents would no longer be exact."""
MAX_QUANTITY = 1_000_000
"""Largest number of pieces that are bought at once."""
MAX_BID = 9e9
"""Largest bid or budget, in the shop's currency: JSON holds no larger exact number of millionths."""

FINGERPRINT_BYTES = 8
"""Bytes of an event id's hash (xxh3, 64 bits). Two of 50 remembered events collide once in 10^16 sessions."""
MAX_ID_LENGTH = 256
"""Characters of an id at most."""
Id = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID_LENGTH)]
Millis = Annotated[int, msgspec.Meta(ge=0, le=YEAR_9999_MS, description="ms since the epoch, UTC, up to year 9999")]
EventTime = Annotated[
    int, msgspec.Meta(ge=YEAR_2000_MS, le=YEAR_9999_MS, description="ms since the epoch, UTC, from year 2000 to 9999")
]
NAME_PATTERN = r"^[a-z][a-z0-9_]{0,63}$"
"""Name of a shelf or of an ad placement."""
NAME_WORDS = {"words": "have at most 64 small letters, digits and `_`, a letter first"}
"""The same pattern, for messages."""
LogOffset = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
"""Offset in a topic: a snapshot holds no larger number than 64 bits, and JSON no larger exact one than 2**53."""
