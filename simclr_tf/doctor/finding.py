"""What a check of the machine found."""

from __future__ import annotations

import dataclasses

# In the order of their weight.
OK, WARNING, PROBLEM = "ok", "warning", "problem"


@dataclasses.dataclass(frozen=True)
class Finding:
    """The result of a check.

    Attributes:
        what: what was checked.
        state: OK; WARNING, if training works but may be slow or limited; PROBLEM, if it does not
            work or does not use what the machine has.
        value: what was found.
        remedy: what the user can do, one or more sentences; empty if the state is OK.
    """

    what: str
    state: str
    value: str
    remedy: str = ""


def ok(what: str, value: str) -> Finding:
    """Returns the result of a check that found nothing wrong."""
    return Finding(what, OK, value)
