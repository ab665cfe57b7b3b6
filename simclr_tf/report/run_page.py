"""report.html of one run."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import os
from typing import Any

from simclr_tf import config as config_lib
from simclr_tf import console, text
from simclr_tf.data import shown as shown_lib
from simclr_tf.report import (
    curves,
    findings,
    overview,
    pages,
    pictures,
    result_numbers,
    run_files,
    settings,
)
from simclr_tf.runs import measured as measured_lib

_VIEWS_CAPTION = "The augmented views of the first images of training, as the network sees them."
# Larger tables are not shown, which a spreadsheet shows better.
_MOST_ROWS, _MOST_COLUMNS = 200, 31
# Evaluations that write files besides numbers, whatever the data.
_WITH_FILES = frozenset(
    ("per_class", "calibration", "selective", "map", "probes", "robustness", "shifts", "ood")
)


@dataclasses.dataclass(frozen=True)
class Table:
    """A CSV file of an evaluation.

    Attributes:
        file: its name.
        header: names of the columns; empty if the table is too large to show.
        rows: the cells.
        size: its size as text.
    """

    file: str
    header: list[str]
    rows: list[list[str]]
    size: str


def render(run: run_files.RunFiles) -> str:
    """Returns the page of a run.

    Args:
        run: what the files of its directory say.
    """
    return pages.fill("run.html.jinja", context(run))


def context(run: run_files.RunFiles) -> dict[str, Any]:
    """Returns what the template of the page reads."""
    config, measure = run.config, measured_lib.measure_of(run.result)
    one_label, left_out = measure == measured_lib.MEASURES[0], run.result.get("eval/left_out")
    views = None
    if run.views is not None:
        views = pictures.of_png(run.views, "First views", _VIEWS_CAPTION, "views.png")
    shown = pictures.of_evaluation(run)
    return {
        "name": os.path.basename(run.folder.rstrip("/")) or run.folder,
        "folder": run.folder,
        "summary": summary(run),
        "warnings": findings.of_run(run),
        "headline": result_numbers.headline(config, run.result),
        "accuracies": result_numbers.accuracies(config, run.result),
        "titles": measured_lib.TITLES[measure],
        "left_out": left_out if isinstance(left_out, dict) else {},
        "chance": 1 / len(run.class_names) if run.class_names and one_label else None,
        "evaluated": _evaluated(run),
        "views": views,
        "curves": curves.of_run(run),
        "groups": result_numbers.groups(run.result),
        "figures": [one for one in shown if one.is_figure],
        "pictures": [one for one in shown if not one.is_figure],
        "tables": [_table(name, rows) for name, rows in run.tables.items()],
        "other_steps": _other_steps(run),
        "commands": None if config is None else settings.commands(run.folder, config),
        "settings": [] if config is None else settings.changed(config),
        "history": [_change(entry) for entry in run.history],
        "commit": run.environment.get("commit"),
        "environment": rows_of(run.environment),
        "data": rows_of({**_network(run), **_data(run)}),
        "missing": missing(run),
    }


def summary(run: run_files.RunFiles) -> str:
    """Returns a sentence on what was run."""
    config, shape, last = run.config, run.architecture, run.metrics.last_step
    if config is None:
        return "The settings of this run are unknown."
    network = config.encoder if shape is None else shape.encoder_name
    images = run.data.get("images")
    of = f"{images:,} images of " if type(images) is int else ""
    split = f"{os.path.basename(config.dataset.rstrip('/'))}, split {config.train_split}"
    objective = config.resolved_objective
    how = "" if objective == "supervised" else f" with {objective}"
    sentence = f"{overview.kind_of_training(config)} of {network}{how} on {of}{split}"
    if last:
        epochs = last * config.train_batch_size / images if type(images) is int and images else None
        sentence += f", for {text.count(last, 'step')}"
        sentence += "" if epochs is None else f" ({epochs:.3g} epochs)"
        sentence += f" of {text.count(config.train_batch_size, 'image')}"
    seconds = result_numbers.find(run.result, "train/seconds")
    if seconds is not None:
        sentence += f", in {console.duration(seconds.value)}"
    return f"{sentence}."


def _evaluated(run: run_files.RunFiles) -> str:
    """Returns a sentence on what was evaluated, or why nothing was."""
    skipped = run.result.get("eval/skipped")
    if not run.result:
        return (
            "This run was not evaluated; "
            f"python run.py --mode=eval --model_dir={run.folder} does it."
        )
    measured, step = run.result.get("eval/measured_on"), run.evaluated_step
    measured = measured if isinstance(measured, dict) else {}
    sentence = "The evaluation" if step is None else f"The evaluation of step {step:,}"
    if "eval_split" in measured:
        images = measured.get("eval_examples")
        counted = f"{images:,} images of " if type(images) is int else ""
        sentence += f" is on {counted}split {measured['eval_split']}"
    else:
        sentence += " does not say which images it is on"
    note = f" No accuracy was measured: {skipped}." if skipped else ""
    return f"{sentence}. Intervals are 95% intervals over the choice of the images.{note}"


def _other_steps(run: run_files.RunFiles) -> list[tuple[int, result_numbers.Accuracy]]:
    """Returns the most important number of the other evaluated steps."""
    found = []
    for step, result in run.results.items():
        headline = result_numbers.headline(run.config, result)
        if step != run.evaluated_step and headline is not None:
            found.append((step, headline))
    return found


def _table(name: str, rows: list[list[str]]) -> Table:
    columns = max(map(len, rows), default=0)
    size = f"{len(rows) - 1:,} rows, {columns:,} columns"
    if len(rows) > _MOST_ROWS or columns > _MOST_COLUMNS or not rows:
        return Table(name, [], [], size)
    header, *body = rows
    return Table(name, header, [[row[0], *map(_brief, row[1:])] for row in body if row], size)


def _brief(cell: str) -> str:
    """Returns a cell of a table, a long fraction with four digits."""
    try:
        return f"{float(cell):.4g}" if "." in cell and len(cell) > 6 else cell
    except ValueError:
        return cell


def _change(entry: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Returns at which step and time settings were changed, and how."""
    changes = []
    for name, values in entry["changes"].items():
        values = values if isinstance(values, dict) else {}
        before, now = (settings.shown(values.get(key)) for key in ("stored", "given"))
        changes.append(f"{name}: {before} → {now}")
    return f"step {entry.get('step')}, {entry.get('time')}", changes


def _network(run: run_files.RunFiles) -> dict[str, Any]:
    shape = run.architecture
    if shape is None:
        return {}
    found: dict[str, Any] = {
        "encoder": shape.encoder_name,
        "image size": f"{shape.image_size} px",
    }
    if shape.encoder == config_lib.Config.encoder:
        found |= {"width": shape.width_multiplier, "stem": shape.stem}
    if not shape.pixels.is_rgb:
        ranges = shape.pixels.ranges(shape.pixels.channels)
        found["channels"] = shape.pixels.described()
        drawn = shown_lib.choose(
            shape.pixels, None if run.config is None else run.config.show_channels
        )
        found["pictures show"] = shown_lib.in_words(shape.pixels, drawn) or None
        found["scale"] = f"to [0, 1] by {shape.pixels.scale}: {ranges}"
    if shape.pixels.is_standardized:
        found["standardized"] = "by mean and deviation of each channel"
    head = f"{shape.proj_head_mode}, {shape.num_proj_layers} layers, {shape.proj_out_dim} outputs"
    return {
        **found,
        "projection head": head,
        "initial weights": "; ".join(run.initial_weights) or None,
    }


def _data(run: run_files.RunFiles) -> dict[str, Any]:
    config: config_lib.Config | None = run.config
    found: dict[str, Any] = {}
    if config is not None:
        found = {"data set": config.dataset, "data folder": config.data_dir}
    if "images" in run.data:
        found["training images"] = run.data["images"]
    if run.best is not None:
        value = f"{run.best.metric} {run.best.value:.4g}"
        found["best step during training"] = f"{run.best.step:,} ({value})"
    names = run.class_names
    found["classes"] = "none" if not names else f"{len(names):,}: {text.shortened(names, most=20)}"
    return found


def rows_of(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns names and values for people, without what is unknown."""
    rows = []
    for name, value in values.items():
        if value is not None and value != []:
            shown = ", ".join(map(str, value)) if isinstance(value, list) else settings.shown(value)
            rows.append((name.replace("_", " "), shown))
    return rows


def missing(run: run_files.RunFiles) -> list[str]:
    """Returns what this page would show if it was in the run directory, and was to be there."""
    mode = None if run.config is None else run.config.mode
    was_trained, is_evaluated = mode != "convert", mode in (None, "train_then_eval")
    shown = run.figures or run.pictures or run.tables
    absent = {
        "the settings (flags.txt)": run.config is None,
        "the network (architecture.json)": run.architecture is None,
        "the training images (data.json)": was_trained and not run.data,
        "the curves (metrics.jsonl)": was_trained and not run.metrics.columns,
        "the first views (views.png)": was_trained and run.views is None,
        "an evaluation (result.json)": is_evaluated and not run.result,
        "figures, pictures and tables of an evaluation (evaluation/)": (
            not shown and _writes_evaluation_files(run, is_evaluated=is_evaluated)
        ),
        "versions and devices (environment.json)": was_trained and not run.environment,
    }
    return [what for what, is_absent in absent.items() if is_absent]


def _writes_evaluation_files(run: run_files.RunFiles, *, is_evaluated: bool) -> bool:
    """Returns whether an evaluation of the run writes files, or would."""
    if run.result:
        done = {key.partition("/")[0] for key in run.result}
    elif run.config is None:
        return True
    else:
        done = set(run.config.evaluation_names if is_evaluated else ())
    return bool(done & _WITH_FILES)
