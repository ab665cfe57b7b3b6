"""Which studies a command line names, and with which seeds and flags they are run."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import os
import pathlib
import shlex
from typing import Any

from simclr_tf import config as config_lib
from simclr_tf import errors, paths, text
from simclr_tf.config import flagfile
from simclr_tf.studies import cells, definition, reading, results

ALL, LIST = "all", "list"


def read(name: str | None, folder: pathlib.Path) -> list[definition.Study]:
    """Returns the studies that --study names.

    Args:
        name: the value of --study.
        folder: the folder of the studies that come with the program.

    Raises:
        UserError: if there is no such study, or its file cannot be read.
    """
    known = {path.stem: path for path in sorted(folder.glob("*.toml"))}
    if name is None:
        raise errors.UserError(
            "--study is missing; name one of the studies that --study=list prints, or all."
        )
    if name == ALL:
        return [reading.read(path) for path in known.values()]
    if name in known:
        return [reading.read(known[name])]
    if name.endswith(".toml"):
        return [reading.read(pathlib.Path(paths.absolute(name)))]
    raise errors.UserError(
        f"--study={name} is not a study{text.suggestion(name, known)}; --study=list prints all of "
        "them, and the path of a file of your own ends in .toml."
    )


def with_seeds(one: definition.Study, count: int) -> definition.Study:
    """Returns a study with another number of seeds; 0 keeps its own."""
    if not count:
        return one
    seeds = list(one.seeds[:count])
    seeds += range(max(one.seeds) + 1, max(one.seeds) + 1 + count - len(seeds))
    return dataclasses.replace(one, seeds=tuple(seeds))


def overrides(config: config_lib.Config, explicit: frozenset[str]) -> dict[str, Any]:
    """Returns the flags that were given for the cells.

    Args:
        config: the settings.
        explicit: names of the flags that were given.

    Raises:
        UserError: for a flag that has no effect on a study.
    """
    if "seed" in explicit:
        raise errors.UserError(
            f"--seed={config.seed} has no effect on a study, whose cells have seeds of their own; "
            "--study_seeds sets their number."
        )
    if "checkpoint" in explicit:
        raise errors.UserError(
            f"--checkpoint={config.checkpoint} has no effect on a study, whose cells start from "
            "scratch or from their first stage; leave it out."
        )
    return {name: getattr(config, name) for name in sorted(explicit - set(cells.OWN_FLAGS))}


def root(config: config_lib.Config) -> str:
    """Returns the folder of all studies, an absolute path."""
    return paths.absolute(config.model_dir or results.DEFAULT_ROOT)


@dataclasses.dataclass(frozen=True)
class Shown:
    """What the page of a study names, for a reader to repeat it.

    Attributes:
        command: the command that runs or resumes the study.
        root: the folder of all studies.
    """

    command: str
    root: str


def shown(config: config_lib.Config, one: definition.Study, given: Mapping[str, Any]) -> Shown:
    """Returns what the page of a study names: no paths of this machine but those that were given.

    Args:
        config: the settings.
        one: the study.
        given: flags of the command line for its cells.
    """
    is_file = (config.study or "").endswith(".toml")
    flags = [
        flagfile.to_flag(key, "PATH" if key == "data_dir" else value)
        for key, value in given.items()
    ]
    if config.study_seeds:
        flags.append(flagfile.to_flag("study_seeds", config.study_seeds))
    folder = _shown_root(config, is_file=is_file)
    if folder != results.DEFAULT_ROOT:
        flags.append(flagfile.to_flag("model_dir", folder))
    name = config.study if is_file else one.name
    command = shlex.join(["python", "run.py", "--mode=study", f"--study={name}", *flags])
    return Shown(command, folder)


def _shown_root(config: config_lib.Config, *, is_file: bool) -> str:
    """Returns the folder of all studies, relative if it is below the current directory.

    If not, that of the user's own study is absolute. The page of a study that comes with the
    program may be published, so it has the default instead.
    """
    absolute = root(config)
    relative = os.path.relpath(absolute)
    if not relative.startswith(os.pardir):
        return relative
    return absolute if is_file else results.DEFAULT_ROOT
