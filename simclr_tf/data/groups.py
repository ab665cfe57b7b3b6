"""Groups of images that are not independent, such as those of one patient, slide or scene."""

from __future__ import annotations

from collections.abc import Sequence
import re

from simclr_tf import errors, text


def of_names(names: Sequence[str], expression: str | None) -> dict[str, str] | None:
    """Returns name -> its group, which a regular expression finds in the name.

    Args:
        names: names of images, which are paths relative to their folder.
        expression: searched in each name. Its group 1 is the group of the image or, if it has
            none, the whole match. None if images are independent.

    Raises:
        errors.UserError: if it is not a regular expression, or some name does not match.
    """
    if expression is None:
        return None
    example = min(names, default="")
    try:
        search = re.compile(expression).search
    except re.error as error:
        raise errors.ArgumentError(
            "group",
            expression,
            f"is not a regular expression ({error}); for names such as {example} give one such as "
            "'(patient\\d+)', or the name of a column of the file of labels.",
        ) from error
    found = {name: search(name) for name in names}
    unmatched = sorted(name for name, match in found.items() if match is None or not _of(match))
    if unmatched:
        raise errors.ArgumentError(
            "group",
            expression,
            f"finds no group in the names of {len(unmatched):,} of {len(names):,} images "
            f"({text.shortened(unmatched)}), and is not the name of a column of a file of labels; "
            "correct it, so that it finds one in each name.",
        )
    return {name: _of(match) for name, match in found.items() if match is not None}


def _of(match: re.Match[str]) -> str:
    """Returns the group of an image whose name matches; empty if its group 1 does not match."""
    return (match[1] if match.re.groups else match[0]) or ""
