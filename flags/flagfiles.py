"""Reads flagfiles: those of the user, and the recipes that come with the program."""

from __future__ import annotations

from collections.abc import Sequence
import os
import pathlib

from simclr_tf import errors, paths, text

RECIPES = pathlib.Path(__file__).parent / "recipes"
STUDIES = pathlib.Path(__file__).parent / "studies"
_ROOT = RECIPES.parent.parent


def replace(arguments: Sequence[str]) -> list[str]:
    """Replaces every --flagfile by the flags in it.

    These come first, because the later of two values wins.

    Args:
        arguments: a command line without the program's name.

    Raises:
        UserError: see `read`.
    """
    rest, from_files, others = list(arguments), list[str](), list[str]()
    while rest:
        argument = rest.pop(0)
        if not _is_flagfile(argument):
            others.append(argument)
            continue
        if "=" not in argument and rest:  # Written as two words.
            argument += f"={rest.pop(0)}"
        from_files += _included(argument, within=())
    return [*from_files, *others]


def read(path: str, *, within: tuple[str, ...] = ()) -> list[str]:
    """Returns the flags in a file, and in the flagfiles that it names.

    Args:
        path: path of the file; a recipe that comes with the program is found from any directory.
        within: paths of the files that include this one.

    Raises:
        UserError: if a file cannot be read, or includes itself.
    """
    found = _find(path)
    if found in within:
        raise errors.UserError(f"--flagfile={found} includes itself; remove that line.")
    flags = []
    for line in map(str.strip, _read_text(found).split("\n")):
        if _is_flagfile(line):
            flags += _included(line, within=(*within, found))
        elif line and not line.startswith(("#", "//")):
            flags.append(line)
    return flags


def _is_flagfile(argument: str) -> bool:
    return argument.partition("=")[0] in ("--flagfile", "-flagfile")


def _included(argument: str, *, within: tuple[str, ...]) -> list[str]:
    """Returns the flags that --flagfile=PATH stands for; none if the path is empty."""
    _, assigned, path = argument.partition("=")
    if not assigned:
        raise errors.UserError("--flagfile lacks a path; write --flagfile=PATH.")
    return read(path, within=within) if path else []


def _find(path: str) -> str:
    """Returns the path of a flagfile; those that come with the program are found from anywhere."""
    path = os.path.expanduser(path)
    own = _ROOT / path
    return str(own) if not os.path.exists(path) and own.is_file() else path


def _read_text(path: str) -> str:
    if paths.scheme(path) is not None:
        raise errors.UserError(f"--flagfile={path} is not a local file; copy it to this machine.")
    try:
        return pathlib.Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise errors.UserError(
            f"--flagfile={path} is not UTF-8 text (its byte {error.start} is "
            f"{error.object[error.start]:#x}); save it as UTF-8, or name another file."
        ) from error
    except OSError as error:
        raise errors.UserError(_message(path, error.strerror or str(error))) from error


def _message(path: str, reason: str) -> str:
    """Returns the message for a flagfile that cannot be read, with recipes of a similar name."""
    folder = RECIPES.relative_to(_ROOT)
    recipes = [recipe.stem for recipe in RECIPES.glob("*.flags")]
    near = text.similar(pathlib.Path(path).stem, recipes)
    remedy = " or ".join(f"{folder}/{name}.flags" for name in near)
    return (
        f"--flagfile={path} cannot be read ({reason}); "
        f"{f'did you mean {remedy}?' if near else f'the recipes are in {folder}/.'}"
    )
