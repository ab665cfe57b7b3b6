"""The metadata of a setting: its help, its default, and the values that it may have.

Flags, `--help`, docs/flags.md and validation are all generated from these descriptions.
"""

from __future__ import annotations

from collections.abc import Iterable
import dataclasses
import re
from typing import Any

from simclr_tf import paths

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
        at_least: smallest value; every number has one.
        at_most: largest value; every number has one, so that no value can overflow or hang.
        zero_is_off: whether 0 is allowed, too, and turns something off.
        reason: why the bounds hold, or only the lower one, for the error message.
        limit_reason: why the upper bound holds, if that is another reason.
        only_with: (name of another setting, its values): with any other value of that setting,
            this one has no effect, so that anything but the default is refused. A value such as
            "tfrecord:GLOB" stands for all that have the same beginning, up to the colon.
        resume: NEVER, WITH_CHANGES or FREELY.
        stored: whether it is stored with a run.
        is_path: whether it is a path; a relative one is stored absolute.
        fine_tuning: its default with --train_mode=finetune; None if that is the same.
        path_pattern: of a setting that may also have other values, a regular expression that
            matches those with a path, which is its group 1.
    """

    section: str
    help: str
    choices: tuple[str, ...] = ()
    at_least: float | None = None
    at_most: float | None = None
    zero_is_off: bool = False
    reason: str = ""
    limit_reason: str = ""
    only_with: tuple[str, tuple[str, ...]] | None = None
    resume: str = WITH_CHANGES
    stored: bool = True
    is_path: bool = False
    fine_tuning: Any = None
    path_pattern: str | None = None

    def path_in(self, value: str) -> str | None:
        """Returns the path in a value of the setting, None if there is none."""
        if self.path_pattern is None:
            return value if self.is_path else None
        match = re.fullmatch(self.path_pattern, value)
        return match[1] if match else None

    def absolute(self, value: str) -> str:
        """Returns a value of the setting with its path, if there is one, made absolute."""
        path = self.path_in(value)
        return value if path is None else value.removesuffix(path) + paths.absolute(path)

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
