"""Terminal text: replace the characters of shown data that could command a terminal or reorder its text."""

import unicodedata

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

_HARMFUL_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode categories of controls (C0, C1, ESC), formats (bidirectional overrides), surrogates and line separators."""
_HARMLESS_FORMATS = frozenset("\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}\N{SOFT HYPHEN}")
"""Format characters of ordinary words: emoji, Persian and Indic scripts need the joiners."""


def safe_text(text: str, *, lines: bool = False) -> str:
    """Return a text in which every harmful character is replaced by U+FFFD.

    Ids, queries and titles come from outside. An escape sequence in an id could clear a terminal or set its title, and
    a bidirectional override could show a text in another order.

    Args:
        text: Text to show.
        lines: Whether the text may have several lines: line feeds stay.
    """
    if text.isprintable():
        return text
    return "".join(REPLACEMENT if _is_harmful(char) and not (lines and char == "\n") else char for char in text)


def safe_json(value: bytes) -> str:
    """Return a JSON value as text of a single line in which every harmful character is escaped.

    Valid JSON keeps its meaning: a harmful character within a string becomes a `u` escape, whitespace becomes a space.
    """
    text = value.decode(errors="replace")
    return text if text.isprintable() else "".join(map(_escaped, text))


def _escaped(char: str) -> str:
    if char in "\n\r\t":
        return " "  # between the values of JSON; within a string JSON itself escapes these
    if not _is_harmful(char):
        return char
    code = ord(char)
    if code <= 0xFFFF:
        return f"\\u{code:04x}"
    high, low = divmod(code - 0x10000, 0x400)  # a pair of surrogates, as in RFC 8259, section 7
    return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"


def _is_harmful(char: str) -> bool:
    return unicodedata.category(char) in _HARMFUL_CATEGORIES and char not in _HARMLESS_FORMATS
