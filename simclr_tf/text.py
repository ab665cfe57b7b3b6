"""Lists in settings, and pieces of messages: suggestions, reasons of errors, quantities."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
import difflib
import re

# The most characters of a message, so that its remedy is not lost among them, and of a word in a
# longer one. Most long words are paths.
MAX_MESSAGE = 600
_MAX_WORD = 120
_CUT = "[...]"


def listed(value: str | None) -> list[str]:
    """Returns what a comma-separated list names, without blanks."""
    names = [name.strip() for name in (value or "").split(",")]
    return [name for name in names if name]


def similar(name: str, known: Iterable[str]) -> list[str]:
    """Returns up to three of the known names that resemble a name, the most similar one first."""
    by_lower = {one.lower(): one for one in sorted(known)}
    return [by_lower[one] for one in difflib.get_close_matches(name.lower(), list(by_lower), n=3)]


def suggestion(name: str, known: Iterable[str]) -> str:
    """Returns " (did you mean ...?)" with up to three similar names, or "" if there is none."""
    near = similar(name, known)
    if not near:
        return ""
    first, last = ", ".join(near[:-1]), near[-1]
    return f" (did you mean {f'{first} or {last}' if first else last}?)"


def shortened(items: Sequence[str], most: int = 3, separator: str = ", ") -> str:
    """Lists the first items and counts the rest, as in "a, b, c and 4 more"."""
    rest = len(items) - most
    return separator.join(items[:most]) + (f" and {rest:,} more" if rest > 0 else "")


def nearest_divisor(value: int, near: int) -> int:
    """Returns the divisor of `value` nearest to `near`, the smaller of two equally near."""
    divisors = (k for k in range(1, value + 1) if value % k == 0)
    return min(divisors, key=lambda k: (abs(k - near), k))


def reason(error: Exception) -> str:
    """Returns the message of an error of TensorFlow or the system, to quote within a sentence."""
    lines = re.sub(r"\{\{.*?\}\} ?| ?\[Op:\w+\]( name: \S*)?", "", str(error)).splitlines()
    return (lines[0] if lines else type(error).__name__).rstrip(".")


def count(number: int, noun: str) -> str:
    """Returns a number of things, as in "1 image" or "1,024 images"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def gib(count: int) -> str:
    """Returns a number of bytes, in GiB."""
    return f"{count / 2**30:.2f} GiB"


def last_checkpoint(path: str | None) -> str:
    """Returns the clause of a message that names the last checkpoint of a run, if it has one."""
    return f"the last complete checkpoint is {path}" if path else "there is no checkpoint yet"


def limited(message: str) -> str:
    """Returns a message with at most MAX_MESSAGE characters.

    Of a longer one, the beginning and the end are kept: what is wrong and what to do. Long words
    are shortened first.
    """
    if len(message) <= MAX_MESSAGE:
        return message
    words = (_without_middle(word, _MAX_WORD) for word in message.split(" "))
    return _without_middle(" ".join(words), MAX_MESSAGE)


def _without_middle(text: str, most: int) -> str:
    half = (most - len(_CUT)) // 2
    return text if len(text) <= most else text[:half] + _CUT + text[-half:]
