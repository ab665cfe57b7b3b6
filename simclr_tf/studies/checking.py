"""Refuses studies whose pieces do not fit together."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from simclr_tf import errors, text
from simclr_tf.studies import definition

# From what is wrong to the error.
Fail = Callable[[str], errors.UserError]


def check(study: definition.Study, fail: Fail) -> None:
    """Refuses axes, labels and orders that the study does not have, or that have no meaning.

    Args:
        study: the study.
        fail: returns the error to raise, from what is wrong.

    Raises:
        UserError: for the first problem.
    """
    if not study.axes:
        raise fail("has no axes; name at least one.")
    _check_axes(study, fail)
    for order in study.orders:
        _check_order(study, order, fail)
    for name in _used_axes(study):
        _known(name, study.axes, fail)
    if study.figure.kind == "heatmap" and study.figure.series is None:
        raise fail("has figure.kind = 'heatmap' without series; name the axis of its rows.")
    _check_metrics(study.figure, fail)
    for flag, axes in study.compose.items():
        for name in axes:
            if study.axis(name).only:
                raise fail(f"composes {flag} of the axis {name!r}, which not every cell has.")


def _check_axes(study: definition.Study, fail: Fail) -> None:
    tuned = study.tuning.axes if study.tuning else ()
    earlier: list[definition.Axis] = []
    for axis in (*study.axes, *tuned):
        if axis.name in [one.name for one in earlier]:
            raise fail(f"has the axis {axis.name!r} twice; rename the tuned one.")
        if axis in tuned and 0 < len(axis.first_stage) < len(axis.values):
            raise fail(
                f"has first_stage in some values of the tuned axis {axis.name!r}; give it to all "
                "or none of them."
            )
        if axis.first_stage and study.first_stage is None:
            raise fail(f"has first_stage in the axis {axis.name!r}; add the table [first_stage].")
        for other, labels in axis.only.items():
            # A tuned axis depends on the axes of cells, and any axis on those before it.
            _check_only(axis, other, labels, [a for a in earlier if a not in tuned], fail)
        earlier.append(axis)


def _check_only(
    axis: definition.Axis,
    other: str,
    labels: tuple[str, ...],
    earlier: list[definition.Axis],
    fail: Fail,
) -> None:
    found = next((one for one in earlier if one.name == other), None)
    if found is None:
        raise fail(f"has only.{other} in the axis {axis.name!r}; name an axis before it.")
    for label in labels:
        if label not in found.values:
            near = text.suggestion(label, found.values) or f"; they are {', '.join(found.values)}"
            raise fail(
                f"has only.{other} = {label!r} in the axis {axis.name!r}, which is not a label of "
                f"{other}{near}."
            )


def _check_metrics(figure: definition.Figure, fail: Fail) -> None:
    if not figure.metrics:
        return
    if figure.kind != "bars" or figure.series is not None or figure.metric != definition.ACCURACY:
        raise fail(
            "has figure.metrics, which are drawn as bars side by side; set kind to 'bars', and "
            "leave series and metric out."
        )
    if figure.y_title is None:
        raise fail("has figure.metrics without y_title; say what all of them are.")


def _check_order(study: definition.Study, order: definition.Order, fail: Fail) -> None:
    sides = order.sides
    matching = {}
    for wanted in (one for side in sides for one in (side.cells, side.minus) if one is not None):
        for name in wanted:
            _known(name, study.axes, fail)
        matching[id(wanted)] = [
            one for one in study.all_labels() if definition.matches(one, wanted)
        ]
        if not matching[id(wanted)]:
            raise fail(
                f"has no cell with {dict(wanted)} in the order {order.claim!r}; correct the labels."
            )
    if not order.spread:
        return
    if any(side.minus is not None or side.metric != definition.ACCURACY for side in sides):
        raise fail(
            f"compares spreads in the order {order.claim!r}; they can only be those of accuracies, "
            "without from and to."
        )
    if any(len(matching[id(side.cells)]) < 2 for side in sides):
        raise fail(
            f"compares spreads in the order {order.claim!r}, which needs two cells on each side."
        )


def _used_axes(study: definition.Study) -> Iterator[str]:
    """Yields the names of axes in the figure, the composed flags and the tuning."""
    yield study.figure.x
    if study.figure.series is not None:
        yield study.figure.series
    for axes in study.compose.values():
        yield from axes
    yield from (study.tuning.per or ()) if study.tuning else ()


def _known(name: str, axes: tuple[definition.Axis, ...], fail: Fail) -> None:
    names = [axis.name for axis in axes]
    if name not in names:
        near = text.suggestion(name, names) or f"; its axes are {', '.join(names)}"
        raise fail(f"has no axis {name!r}{near}.")
