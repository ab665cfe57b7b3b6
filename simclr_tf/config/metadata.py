"""The metadata of a setting: its help, its default, and the values that it may have.

Flags, `--help`, docs/flags.md and validation are all generated from these descriptions.
"""

from __future__ import annotations

from collections.abc import Iterable
import dataclasses
from typing import Any

_KEY = "setting"
# Whether a run can be resumed with another value of a setting: not at all; with
# --resume_with_changes, because it changes the outcome; or freely, because it does not.
NEVER, WITH_CHANGES, FREELY = "never", "with_changes", "freely"


@dataclasses.dataclass(frozen=True)
class Setting:
    """The description of a field of a Config.

    Attributes:
        section: title under which `--help` lists it.
        help: what it does, in which unit, and what is known of its values.
        choices: the values it may have; empty if any value of its type will do.
        at_least: smallest value; None without a bound.
        at_most: largest value; None without a bound.
        above: value that it must exceed; None without a bound. It must then be finite, too.
        reason: why the bound holds, for the error message.
        only_with: (name of another setting, its values): with any other value of that setting,
            this one has no effect, so that anything but the default is refused. A value such as
            "tfrecord:GLOB" stands for all that have the same beginning, up to the colon.
        resume: NEVER, WITH_CHANGES or FREELY.
        stored: whether it is stored with a run.
        is_path: whether it is a path; a relative one is stored absolute.
    """

    section: str
    help: str
    choices: tuple[str, ...] = ()
    at_least: float | None = None
    at_most: float | None = None
    above: float | None = None
    reason: str = ""
    only_with: tuple[str, tuple[str, ...]] | None = None
    resume: str = WITH_CHANGES
    stored: bool = True
    is_path: bool = False

    @property
    def full_help(self) -> str:
        """The help with the choices in front."""
        return f"{' | '.join(self.choices)}. {self.help}" if self.choices else self.help


@dataclasses.dataclass(frozen=True)
class Section:
    """A group of settings, which are listed together.

    Attributes:
        title: above the list.
    """

    title: str

    def setting(self, default: Any, help: str, **description: Any) -> Any:
        """Returns a dataclass field with a default and a description, see `Setting`."""
        described = Setting(self.title, help, **description)
        return dataclasses.field(default=default, metadata={_KEY: described})


def describe(field: dataclasses.Field) -> Setting:
    """Returns the description of a field of a Config."""
    return field.metadata[_KEY]


def by_section(fields: Iterable[dataclasses.Field]) -> dict[str, list[dataclasses.Field]]:
    """Groups fields by the title of their section, in order of definition."""
    sections: dict[str, list[dataclasses.Field]] = {}
    for field in fields:
        sections.setdefault(describe(field).section, []).append(field)
    return sections
