"""The list of runs: a table for the terminal, and a CSV file."""

from __future__ import annotations

from collections.abc import Collection, Sequence
import csv
import datetime
import io
from typing import Any

from simclr_tf import config as config_lib
from simclr_tf import text
from simclr_tf.runs import listing, measured, selection

HEADER = ("run", "state, step", "objective, data", "accuracy", "age")
_MARK = "* "
_UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))


def rows(runs: Sequence[listing.Run], best: Collection[str], now: float) -> list[list[str]]:
    """Returns the cells of the table, some of two or three lines, so that 80 columns suffice.

    Args:
        runs: the runs, in their order.
        best: names of those to mark.
        now: the time, in seconds since 1970.
    """
    return [
        [
            _name(run, is_best=run.name in best),
            f"{run.state}\n{_steps(run)}".rstrip(),
            "" if run.config is None else f"{_method(run.config)}\n{_data(run.config)}",
            _accuracy(run),
            _age(now - run.changed) if run.changed else "",
        ]
        for run in runs
    ]


def _name(run: listing.Run, *, is_best: bool) -> str:
    """Returns the path of a run, and below it what a study calls it."""
    return f"{_MARK if is_best else ''}{run.name}\n{text.shortened(run.cells, 1)}".rstrip()


def _steps(run: listing.Run) -> str:
    if run.config is None:
        return ""
    steps = f"{run.step}" if run.total_steps is None else f"{run.step}/{run.total_steps}"
    done, total = run.epochs(run.step), run.epochs(run.total_steps)
    if done is None:
        return steps
    return f"{steps}\nepoch {_short(done)}" + ("" if total is None else f"/{_short(total)}")


def _short(number: float) -> str:
    return f"{number:.0f}" if number >= 100 else f"{number:.3g}"


def _method(config: config_lib.Config) -> str:
    return f"{config.resolved_objective}, {network(config)}"


def network(config: config_lib.Config) -> str:
    """Returns a short name of the encoder, such as resnet50x2."""
    if config.encoder != "resnet":
        return config.encoder
    width = f"x{config.width_multiplier}" if config.width_multiplier > 1 else ""
    ratios = "".join(f"+{name}" for name in ("sk", "se") if getattr(config, f"{name}_ratio"))
    return f"resnet{config.resnet_depth}{width}{ratios}"


def _data(config: config_lib.Config) -> str:
    return f"{config.dataset}, {config.image_size} px"


def _accuracy(run: listing.Run) -> str:
    found, lines = run.accuracy, []
    if found is not None:
        precision = found.name.endswith(measured.MEASURES[1])
        lines.append(f"{found.value:.1%}{' mAP' if precision else ''}")
        if found.low is not None and found.high is not None:
            lines.append(f"{100 * found.low:.1f}-{100 * found.high:.1f}")
        if found.step != run.step:
            lines.append(f"step {found.step}")
    if run.best is not None:
        lines.append(f"best: {run.best.step}")
    return "\n".join(lines)


def _age(seconds: float) -> str:
    unit, size = next((one for one in _UNITS if seconds >= one[1]), _UNITS[-1])
    return f"{max(0, int(seconds // size))} {unit}"


def to_csv(runs: Sequence[listing.Run], best: Collection[str]) -> str:
    """Returns all that is known about the runs, and the settings in which they differ.

    Args:
        runs: the runs, in their order.
        best: names of those that are marked.
    """
    columns = [_columns(run, run.name in best) for run in runs]
    names = [name for name in selection.differing_settings(runs) if name not in columns[0]]
    for run, of_run in zip(runs, columns, strict=True):
        of_run.update({name: getattr(run.config, name, None) for name in names})
    content = io.StringIO()
    writer = csv.DictWriter(content, list(columns[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(columns)
    return content.getvalue()


def _columns(run: listing.Run, is_best: bool) -> dict[str, Any]:
    config, accuracy, best = run.config, run.accuracy, run.best
    changed = datetime.datetime.fromtimestamp(run.changed, datetime.UTC) if run.changed else None
    return {
        "run": run.name,
        "cell": "; ".join(run.cells),
        "state": run.state,
        "step": None if config is None else run.step,
        "total_steps": run.total_steps,
        "epoch": None if config is None else run.epochs(run.step),
        "total_epochs": run.epochs(run.total_steps),
        "objective": getattr(config, "resolved_objective", None),
        "dataset": getattr(config, "dataset", None),
        "network": None if config is None else network(config),
        "accuracy": getattr(accuracy, "value", None),
        "accuracy_low": getattr(accuracy, "low", None),
        "accuracy_high": getattr(accuracy, "high", None),
        "accuracy_name": getattr(accuracy, "name", None),
        "accuracy_step": getattr(accuracy, "step", None),
        "is_best": is_best,
        "best_step": getattr(best, "step", None),
        "best_metric": getattr(best, "metric", None),
        "best_value": getattr(best, "value", None),
        "changed": None if changed is None else changed.isoformat(timespec="seconds"),
        "problems": "; ".join(run.problems),
    }
