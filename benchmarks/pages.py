"""Writes tables of results into the pages of docs/."""

from __future__ import annotations

_END = "<!-- end -->\n"


def rows_of_table(page: str, benchmark: str) -> list[str]:
    """Returns the lines of the table of a benchmark that follow its two lines of titles.

    Args:
        page: path of the page.
        benchmark: file name of the benchmark.
    """
    with open(page, encoding="utf-8") as file:
        after = file.read().split(_begin(benchmark))[1]
    return after.split(_END, 1)[0].splitlines()[2:]


def replace_table(page: str, benchmark: str, table: str) -> None:
    """Replaces the table between the two comments of a benchmark.

    Args:
        page: path of the page.
        benchmark: file name of the benchmark, which the first comment names.
        table: the new table, in Markdown.
    """
    begin = _begin(benchmark)
    with open(page, encoding="utf-8") as file:
        before, rest = file.read().split(begin)
    after = rest.split(_END, 1)[1]
    with open(page, "w", encoding="utf-8") as file:
        file.write(before + begin + table + _END + after)


def _begin(benchmark: str) -> str:
    return f"<!-- table: benchmarks/{benchmark} -->\n"
