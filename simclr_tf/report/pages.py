"""Fills the templates of report pages, which need no other file and no network."""

from __future__ import annotations

from collections.abc import Mapping
import functools
import pathlib
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import jinja2

_TEMPLATES = pathlib.Path(__file__).parent / "templates"
_STYLE = "report.css"


def fill(template: str, context: Mapping[str, Any]) -> str:
    """Returns a page. All text is escaped.

    Args:
        template: name of the template.
        context: what the template reads.
    """
    return _environment().get_template(template).render(**context)


@functools.cache
def _environment() -> jinja2.Environment:
    import jinja2  # Not before a report is written.

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["style"] = (_TEMPLATES / _STYLE).read_text(encoding="utf-8")
    environment.globals["split_at_flags"] = functools.partial(re.split, r"(--\w+)")
    return environment
