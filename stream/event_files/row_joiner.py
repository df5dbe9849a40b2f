"""Row joiner: join the lines of a row that has line breaks in quotes."""

from collections.abc import Callable, Iterator

MAX_ROW_LINES = 100
"""Limit of lines of a row with line breaks in quotes. Beyond it, the quote that opens is taken for a stray quote."""

MAX_ROW_BYTES = 1024 * 1024
"""Limit of bytes of a row with line breaks in quotes: the length limit of a line."""


class RowJoiner:
    """Makes rows of lines; a line with an open quote waits for the line that closes the quote."""

    def __init__(self, has_open_quote: Callable[[bytes], bool]) -> None:
        """Start before the first line.

        Args:
            has_open_quote: Returns whether a quote opens in the text of a row and does not close.
        """
        self.open_bytes = 0
        """Number of bytes, with line ends, of the lines of a row that has not ended yet."""
        self._has_open_quote = has_open_quote
        self._open: list[tuple[int, bytes]] = []

    @property
    def open_lines(self) -> int:
        """Number of lines of a row that has not ended yet."""
        return len(self._open)

    def add(self, number: int, text: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield the rows that end with a line, each with the number of its first line.

        Args:
            number: Number of the line, from 1.
            text: The line without its line end.
        """
        if not self._open and not self._has_open_quote(text):
            yield number, text
            return
        self._open.append((number, text))
        self.open_bytes += len(text) + 1
        if len(self._open) == 1:
            return
        if len(self._open) > MAX_ROW_LINES or self.open_bytes > MAX_ROW_BYTES:
            yield from self._give_up()
        elif b'"' in text and not self._has_open_quote(joined := b"\n".join(line for _, line in self._open)):
            first = self._open[0][0]
            self._close()
            yield first, joined

    def finish(self) -> Iterator[tuple[int, bytes]]:
        """Yield the rows of the lines that wait for a closing quote, at the end of the file."""
        while self._open:
            yield from self._give_up()

    def _give_up(self) -> Iterator[tuple[int, bytes]]:
        """Yield the first waiting line as a row of its own, and begin again with the lines after it."""
        first, *rest = self._open
        self._close()
        yield first
        for number, text in rest:
            yield from self.add(number, text)

    def _close(self) -> None:
        self._open = []
        self.open_bytes = 0
