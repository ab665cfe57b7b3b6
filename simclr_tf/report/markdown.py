"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Sequence


def table(header: Sequence[str], alignments: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a table in Markdown.

    Args:
        header: titles of the columns.
        alignments: --- for the left of each column, --: for the right.
        rows: the cells.
    """
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in (header, alignments, *rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in escaped) + "\n"
