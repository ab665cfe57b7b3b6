"""Checks Python and the installed packages against what this program requires."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
import contextlib
import importlib.metadata
import pathlib
import platform
import re

from packaging import requirements, version

import simclr_tf
from simclr_tf import text
from simclr_tf.doctor import finding

_TESTED = ((3, 11), (3, 12), (3, 13))
_TENSORFLOW, _TF_KERAS, _KERAS = "tensorflow", "tf-keras", "keras"
# The packages that have a line of their own, in this order.
_SHOWN = {
    _TENSORFLOW: "TensorFlow",
    _TF_KERAS: "Keras (tf-keras)",
    _KERAS: "Keras",
    "tensorflow-datasets": "tensorflow-datasets",
}
_INSTALL = "Run: pip install"
Versions = Callable[[str], str | None]


def python(running: str, system: str) -> finding.Finding:
    """Checks the version of Python.

    Args:
        running: the version, such as 3.12.3.
        system: name of the system, to be shown.
    """
    value = f"{running} on {system}"
    minor = tuple(map(int, running.split(".")[:2]))
    if minor in _TESTED:
        return finding.ok("Python", value)
    tested = ", ".join(".".join(map(str, one)) for one in _TESTED)
    state = finding.PROBLEM if minor < _TESTED[0] else finding.WARNING
    remedy = f"This program is tested with Python {tested}; make an environment with one of them."
    return finding.Finding("Python", state, value, remedy)


def this_python() -> finding.Finding:
    """Checks the version of the Python that runs this program."""
    return python(platform.python_version(), f"{platform.system()} {platform.machine()}")


def installed(name: str) -> str | None:
    """Returns the version of an installed package; None if it is not installed.

    TensorFlow may come from another package than `tensorflow`.
    """
    if name == _TENSORFLOW:
        return next(iter(simclr_tf.installed_tensorflow().values()), None)
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(name)
    return None


def declared(root: pathlib.Path) -> list[requirements.Requirement]:
    """Returns what this program requires.

    Args:
        root: the folder above the package `simclr_tf`. A checkout has requirements.txt there;
            without it, the metadata of the installed package has the same list.
    """
    file = root / "requirements.txt"
    if file.exists():
        lines = [re.sub(r"(^|\s)#.*", "", line).strip() for line in file.read_text().splitlines()]
        return [requirements.Requirement(line) for line in lines if line]
    return required_by("simclr-tf")


def required_by(package: str, extra: str = "") -> list[requirements.Requirement]:
    """Returns what an installed package requires, or only what one of its extras adds."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        lines = importlib.metadata.requires(package) or []
        found = [requirements.Requirement(line) for line in lines]
        return [one for one in found if ("extra" in str(one.marker)) == bool(extra)]
    return []


def unmet(
    required: Iterable[requirements.Requirement], versions: Versions = installed, extra: str = ""
) -> dict[str, str]:
    """Returns name -> what is wrong, for packages that are missing or have another version.

    Args:
        required: the requirements; those whose markers do not fit this Python do not count.
        versions: returns the version of a package, as `installed` does.
        extra: the extra that is wanted, for markers.
    """
    wrong = {}
    for one in _applicable(required, extra):
        found = versions(one.name)
        if found is None:
            wrong[one.name] = f"not installed, {one.specifier or 'any version'} is required"
        elif not one.specifier.contains(found, prereleases=True):
            wrong[one.name] = f"{found}, {one.specifier} is required"
    return wrong


def _applicable(
    required: Iterable[requirements.Requirement], extra: str = ""
) -> list[requirements.Requirement]:
    return [one for one in required if not one.marker or one.marker.evaluate({"extra": extra})]


def check(
    required: Iterable[requirements.Requirement],
    builds: Mapping[str, str],
    versions: Versions = installed,
) -> list[finding.Finding]:
    """Checks the installed packages: a line for each important one, and each that is wrong.

    Args:
        required: what the program and TensorFlow require.
        builds: the installed packages with TensorFlow and their versions.
        versions: returns the version of a package, as `installed` does.
    """
    wanted = _applicable(required)
    wrong = unmet(wanted, versions)
    names = list(dict.fromkeys(one.name for one in wanted))
    shown = [name for name in _SHOWN if name in names]
    if _TF_KERAS in names and _KERAS in shown and _KERAS not in wrong:
        shown.remove(_KERAS)  # TensorFlow installs it, but this program does not use it.
    others = [name for name in names if name not in shown]
    found = [_line(name, wrong, wanted, builds, versions) for name in shown]
    found += [_line(name, wrong, wanted, builds, versions) for name in others if name in wrong]
    right = sum(name not in wrong for name in others)
    found.append(finding.ok("other packages", f"{text.count(right, 'package')} as required"))
    return [*found, *_conflicts(builds, versions)]


def _line(
    name: str,
    wrong: Mapping[str, str],
    wanted: Iterable[requirements.Requirement],
    builds: Mapping[str, str],
    versions: Versions,
) -> finding.Finding:
    what = _SHOWN.get(name, name)
    if name in wrong:
        specifier = ",".join(str(one.specifier) for one in wanted if one.name == name)
        package = f'"{name}{specifier.strip(",")}"'
        return finding.Finding(what, finding.PROBLEM, wrong[name], f"{_INSTALL} {package}")
    value = str(versions(name))
    if name == _TENSORFLOW and name not in builds:
        value += f" ({next(iter(builds), name)})"
    return finding.ok(what, value)


def _conflicts(builds: Mapping[str, str], versions: Versions) -> list[finding.Finding]:
    """Returns the packages that do not fit together, although each is as required."""
    found = []
    if len(builds) > 1:
        names = list(builds)
        value = f"{' and '.join(names)} are both installed, and overwrite each other's files"
        remedy = f"Run: pip uninstall -y {' '.join(names)}, and then: pip install one of them."
        found.append(finding.Finding("TensorFlow's packages", finding.PROBLEM, value, remedy))
    tensorflow, keras = versions(_TENSORFLOW), versions(_TF_KERAS)
    if tensorflow and keras:
        one, other = version.Version(tensorflow), version.Version(keras)
        if one >= version.Version("2.16") and one.release[:2] != other.release[:2]:
            value = f"tf-keras {keras} is not the one for TensorFlow {tensorflow}"
            fitting = ".".join(map(str, one.release[:2]))
            remedy = f'{_INSTALL} "tf-keras=={fitting}.*"'
            found.append(finding.Finding("Keras for TensorFlow", finding.PROBLEM, value, remedy))
    return found
