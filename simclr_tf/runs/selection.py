"""Which of the listed runs are shown, in which order, and which of them are the best."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
import dataclasses
import math
import operator
import re
from typing import Any

from simclr_tf import config as config_lib
from simclr_tf import errors, text
from simclr_tf.config import flagfile, metadata
from simclr_tf.runs import listing

_STATE = "state"
_STATES = (listing.TRAINING, listing.FINISHED, listing.STOPPED, listing.FAILED)
# What --filter compares an accuracy with, by the sign.
_COMPARISONS = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}
_ACCURACY = "accuracy"
_BOUND = re.compile(rf"{_ACCURACY}\s*({'|'.join(_COMPARISONS)})\s*(.*)")
_FIELDS = {field.name: field for field in dataclasses.fields(config_lib.Config)}


def parse_filter(value: str | None) -> dict[str, Any]:
    """Returns the keys and values that --filter names; of accuracies, the key has the sign.

    Raises:
        ArgumentError: for what is neither KEY=VALUE nor a bound of accuracies, an unknown key, a
            key that occurs twice, or a value that its key cannot have.
    """
    wanted: dict[str, Any] = {}
    for one in text.listed(value):
        bound = _BOUND.fullmatch(one)
        if bound is not None:
            wanted[f"{_ACCURACY}{bound[1]}"] = _parse_fraction(value, one, bound[2])
            continue
        key, assigned, content = (piece.strip() for piece in one.partition("="))
        if not assigned:
            problem = (
                f"has {one!r}, which is not KEY=VALUE, as in dataset=digits,state=stopped, or a "
                f"bound, as in {_ACCURACY}>0.5."
            )
        elif key == _ACCURACY:
            problem = f"has {one!r}; give a bound, as in {_ACCURACY}>0.5."
        elif key not in (_STATE, *_stored()):
            near = text.suggestion(key, (_STATE, _ACCURACY, *_stored()))
            problem = (
                f"has the key {key!r}{near}, which is neither a setting of a run nor {_STATE} or "
                f"{_ACCURACY}."
            )
        elif key in wanted:
            problem = f"has the key {key!r} twice; give it one value."
        else:
            wanted[key] = _parse_value(value, key, content)
            continue
        raise errors.ArgumentError("filter", value, problem)
    return wanted


def _stored() -> list[str]:
    return [name for name, field in _FIELDS.items() if metadata.describe(field).stored]


def _parse_value(given: str | None, key: str, content: str) -> Any:
    """Returns a value of --filter, as it is in the settings of a run."""
    choices = _STATES if key == _STATE else metadata.describe(_FIELDS[key]).choices
    if choices and content not in choices:
        near = text.suggestion(content, choices)
        raise errors.ArgumentError(
            "filter",
            given,
            f"has {key}={content}{near}; {key} is one of {', '.join(choices)}.",
        )
    if key == _STATE:
        return content
    try:
        return flagfile.parse(config_lib.Config, f"--{key}={content}", origin="--filter")[key]
    except errors.UserError as error:
        raise errors.ArgumentError(
            "filter", given, f"has {key}={content}, which --{key} cannot be."
        ) from error


def _parse_fraction(given: str | None, one: str, content: str) -> float:
    """Returns a bound of accuracies, such as 0.5 of "0.5" and of "50%"."""
    try:
        number = float(content.removesuffix("%")) / (100 if content.endswith("%") else 1)
    except ValueError:
        number = math.nan
    if not 0 <= number <= 1:  # NaN fails, too.
        raise errors.ArgumentError(
            "filter", given, f"has {one!r}; a bound is between 0 and 1, or between 0% and 100%."
        )
    return number


def filtered(runs: Sequence[listing.Run], wanted: dict[str, Any]) -> list[listing.Run]:
    """Returns the runs that have all the wanted values, and those that cannot be read."""
    return [
        run
        for run in runs
        if run.state == listing.UNREADABLE
        or all(_has(run, key, value) for key, value in wanted.items())
    ]


def _has(run: listing.Run, key: str, value: Any) -> bool:
    """Returns whether a run has a value, as given or as used, or its accuracy is in a bound."""
    if key == _STATE:
        return run.state == value
    compare = _COMPARISONS.get(key.removeprefix(_ACCURACY))
    if compare is not None:
        return run.accuracy is not None and compare(run.accuracy.value, value)
    if run.config is None:
        return False
    if isinstance(value, str):
        value = metadata.describe(_FIELDS[key]).absolute(value)
        if not value and _FIELDS[key].default is None:
            value = None  # An empty value unsets a setting.
    names = [name for name in (key, f"resolved_{key}") if hasattr(run.config, name)]
    return value in [getattr(run.config, name) for name in names]


def ordered(runs: Sequence[listing.Run], order: str) -> list[listing.Run]:
    """Returns the runs by "name", by "accuracy" (highest first) or by "age" (last changed first).

    Runs without an accuracy come last.
    """
    if order == "accuracy":
        return sorted(
            runs, key=lambda run: -1.0 if run.accuracy is None else run.accuracy.value, reverse=True
        )
    if order == "age":
        return sorted(runs, key=lambda run: run.changed, reverse=True)
    return sorted(runs, key=lambda run: run.name)


def best(runs: Sequence[listing.Run]) -> set[str]:
    """Returns the names of the runs with the highest accuracy on the images of their evaluation.

    Accuracies on other images are not comparable. A run that is alone with its images is not the
    best of them.
    """
    of_images: dict[Hashable, list[listing.Run]] = defaultdict(list)
    for run in runs:
        if run.accuracy is not None and run.config is not None:
            config = run.config
            data = (config.dataset, config.data_dir, config.eval_split)
            of_images[run.accuracy.labels or data].append(run)
    names = set()
    for compared in of_images.values():
        highest = max(_value(run) for run in compared)
        if len(compared) > 1:
            names |= {run.name for run in compared if _value(run) == highest}
    return names


def _value(run: listing.Run) -> float:
    assert run.accuracy is not None
    return run.accuracy.value


def differing_settings(runs: Sequence[listing.Run]) -> list[str]:
    """Returns the names of the settings of which the runs have several values.

    The run directory, which always differs, is left out.
    """
    configs = [run.config for run in runs if run.config is not None]
    return [
        name
        for name in _stored()
        if name != "model_dir" and len({getattr(config, name) for config in configs}) > 1
    ]
