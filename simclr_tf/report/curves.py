"""The curves of training: which metrics are drawn together, and their figures as SVG.

Colours are CSS variables, so that a figure follows the light or dark colours of its page. Names are
in the page and not in the figure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import fnmatch
import io
import math
import re

import numpy as np

from simclr_tf.report import metric_columns, run_files
from simclr_tf.training import objectives

# Numbers of CSS variables --series-1, ...
NUM_COLOURS = 6
_DASHES = ((), (4, 2), (1, 1.5))  # Of further series, whose colours repeat.
_INCHES = (4.4, 2.1)
# Colours that are replaced by CSS variables.
_INK, _GRID, _LEVEL = "#010101", "#020202", "#030303"
_SERIES = tuple(f"#0405{number:02x}" for number in range(1, NUM_COLOURS + 1))


@dataclasses.dataclass(frozen=True)
class Panel:
    """Metrics that are drawn into one figure.

    Attributes:
        title: above it.
        metrics: pattern of the names of metrics -> what they are; "" for their own names.
        note: what the numbers mean.
        level: name of the level of chance, if there is one: "loss", "labels" or "guess".
        is_fraction: whether the axis is in percent.
        is_logarithmic: whether the axis is logarithmic, if the values span decades.
    """

    title: str
    metrics: Mapping[str, str]
    note: str = ""
    level: str = ""
    is_fraction: bool = False
    is_logarithmic: bool = False


PANELS = (
    Panel("Contrastive loss", {"train/contrast_loss": "training"}, level="loss"),
    Panel("Distillation loss", {"train/distillation_loss": "training"}),
    Panel(
        "Contrastive accuracy",
        {"train/contrast_acc": "training"},
        "How often the second view of an image is the nearest one to its first.",
        is_fraction=True,
    ),
    Panel("Label loss", {"train/supervised_loss": "training"}, level="labels"),
    Panel(
        "Label accuracy",
        {
            "train/supervised_acc": "training, augmented images",
            "validation/label_top_1_accuracy": "validation",
            "validation/knn/*/top_1_accuracy": "",
            "train/teacher_agreement": "agreement with the teacher",
        },
        level="guess",
        is_fraction=True,
    ),
    Panel(
        "Overlap of labels",
        {
            "train/supervised_jaccard": "training, augmented images",
            "validation/label_mean_average_precision": "validation, mean average precision",
            "validation/knn/*/mean_average_precision": "",
        },
        "In training: of the labels that are predicted or right, the fraction that is both.",
        is_fraction=True,
    ),
    Panel(
        "Recognised views",
        {"validation/label_free/view_retrieval": "validation"},
        "How often the other view of an image is the nearest one.",
        is_fraction=True,
    ),
    Panel("Learning rate", {"learning_rate": "learning rate"}),
    Panel(
        "Spread of the features",
        {"train/feature_spread": "training"},
        "0 if the features of all images are equal, 1 if they point in all directions.",
    ),
    Panel(
        "Cosine of projections",
        {"train/positive_cosine": "views of one image", "train/negative_cosine": "other images"},
    ),
    Panel(
        "Rank of the features",
        {"train/feature_rank": "training"},
        "In how many directions the features of a batch differ.",
    ),
    Panel("Norm of the gradient", {"train/gradient_norm": "training"}, is_logarithmic=True),
    Panel("Images per second", {"train/images_per_second": "training"}),
    Panel(
        "Input wait",
        {"train/input_wait": "training"},
        "Fraction of the time in which training waited for images.",
        is_fraction=True,
    ),
    Panel("Memory", {"*memory*": ""}),
)


@dataclasses.dataclass(frozen=True)
class Line:
    """A curve.

    Attributes:
        name: what it is.
        column: its points.
        colour: number of its CSS variable, from 1.
        dashes: number of its dashes, from 0 for none.
    """

    name: str
    column: metric_columns.Column
    colour: int = 1
    dashes: int = 0

    @property
    def last(self) -> float:
        """Its last value."""
        return float(self.column.values[-1])


@dataclasses.dataclass(frozen=True)
class Drawn:
    """A figure with what its caption says.

    Attributes:
        panel: what it shows.
        lines: its curves.
        level: the level of chance; None if there is none.
        svg: the figure, for the inside of a page.
    """

    panel: Panel
    lines: tuple[Line, ...]
    level: float | None
    svg: str

    @property
    def per_point(self) -> int:
        """The most records that a point is the mean of."""
        return max(line.column.per_point for line in self.lines)

    def text(self, value: float) -> str:
        """Returns a value of the figure as text."""
        return f"{value:.1%}" if self.panel.is_fraction else f"{value:.4g}"


def of_run(run: run_files.RunFiles) -> list[Drawn]:
    """Returns the figures of a run: those of which it has metrics."""
    return _draw_all({"": run})


def of_runs(runs: Mapping[str, run_files.RunFiles]) -> list[Drawn]:
    """Returns figures with a curve of each run, by the names of the runs."""
    return _draw_all(runs)


def _draw_all(runs: Mapping[str, run_files.RunFiles]) -> list[Drawn]:
    found = []
    for number, panel in enumerate(PANELS):
        lines = _lines(panel, runs)
        if not lines:
            continue
        levels = {level for run in runs.values() if (level := _level(panel, run)) is not None}
        level = levels.pop() if len(levels) == 1 else None
        found.append(Drawn(panel, tuple(lines), level, _to_svg(panel, lines, level, number)))
    return found


def _lines(panel: Panel, runs: Mapping[str, run_files.RunFiles]) -> list[Line]:
    """Returns the curves of a figure. The runs have a colour each, or else the metrics of a run."""
    found: list[tuple[int, int, metric_columns.Column]] = []  # Number of the run, of the metric.
    names: list[str] = []
    for number, run in enumerate(runs.values()):
        for metric, name in _metrics(panel, run).items():
            column = metric_columns.thinned(run.metrics.columns[metric])
            if np.isfinite(column.values).any():
                names += [] if name in names else [name]
                found.append((number, names.index(name), column))
    of_run = list(runs)
    lines = []
    for number, metric_number, column in found:
        first, second = number, metric_number
        name = of_run[number] if len(names) == 1 else f"{of_run[number]}: {names[metric_number]}"
        if len(runs) == 1:
            first, second, name = metric_number, 0, names[metric_number]
        dashes = (first // NUM_COLOURS + second) % len(_DASHES)
        lines.append(Line(name, column, first % NUM_COLOURS + 1, dashes))
    return lines


def _metrics(panel: Panel, run: run_files.RunFiles) -> dict[str, str]:
    """Returns the metrics of a run that a figure shows, with what they are."""
    return {
        metric: name or metric.partition("/")[2].replace("_", " ").replace("/", " ")
        for pattern, name in panel.metrics.items()
        for metric in fnmatch.filter(run.metrics.columns, pattern)
    }


def _level(panel: Panel, run: run_files.RunFiles) -> float | None:
    """Returns the level of chance of a figure: what equal similarities or probabilities give."""
    if panel.level == "loss":
        return loss_at_chance(run)
    classes = len(run.class_names or ())
    if classes < 2 or not panel.level:
        return None
    return label_loss_at_chance(run) if panel.level == "labels" else 1 / classes


def label_loss_at_chance(run: run_files.RunFiles) -> float | None:
    """Returns the label loss of equal probabilities; None if the classes are unknown."""
    if not run.class_names:
        return None
    several = run.architecture is not None and run.architecture.several_labels
    classes = len(run.class_names)
    return classes * math.log(2) if several else math.log(classes)


def loss_at_chance(run: run_files.RunFiles) -> float | None:
    """Returns the contrastive loss of a network that knows nothing; None if it is undefined."""
    recorded = run.metrics.last("train/chance_loss")
    if recorded is not None or run.config is None:
        return recorded
    return objectives.chance_loss(run.config)


def _to_svg(panel: Panel, lines: Sequence[Line], level: float | None, number: int) -> str:
    """Draws a figure.

    Args:
        panel: what it shows.
        lines: its curves.
        level: the level of chance, drawn as a dashed line.
        number: a number that no other figure of the page has.
    """
    import matplotlib as mpl  # Not before a report is written: it takes a second.
    from matplotlib import figure, ticker

    target = figure.Figure(figsize=_INCHES)
    target.patch.set_visible(False)
    axes = target.add_axes((0.13, 0.13, 0.85, 0.83), facecolor="none")
    for line in lines:
        column, dashes = line.column, _DASHES[line.dashes]
        marker = "o" if len(column.steps) < 3 else None
        drawn = axes.plot(
            column.steps, column.values, color=_SERIES[line.colour - 1], lw=1.6, marker=marker, ms=3
        )
        if dashes:
            drawn[0].set_dashes(dashes)
    if level is not None:
        axes.axhline(level, color=_LEVEL, lw=1.2, dashes=(4, 3))
    if panel.is_logarithmic and _spans_decades(lines):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
    else:
        axes.yaxis.set_major_locator(ticker.MaxNLocator(6, steps=[1, 2, 5, 10]))
    if panel.is_fraction:
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g}%")
    axes.xaxis.set_major_locator(ticker.MaxNLocator(5, steps=[1, 2, 5, 10], integer=True))
    axes.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:,.0f}"))
    axes.tick_params(colors=_INK, labelsize=8, length=3, width=0.6)
    axes.grid(color=_GRID, lw=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set(color=_GRID)
    content = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "simclr", "svg.fonttype": "none"}):
        target.savefig(content, format="svg", metadata={"Date": None})
    return _for_page(content.getvalue(), f"curve{number}-")


def _spans_decades(lines: Sequence[Line]) -> bool:
    """Returns whether a logarithmic axis of these curves has two labels at least."""
    values = np.concatenate([line.column.values for line in lines])
    low, high = np.nanmin(values), np.nanmax(values)
    return bool(low > 0 and high / low >= 100)


def _for_page(svg: str, prefix: str) -> str:
    """Returns a figure for the inside of a page, whose colours and fonts are those of the page.

    Args:
        svg: the file that Matplotlib wrote.
        prefix: of its identifiers, which would otherwise be those of other figures.
    """
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' (?:width|height)="[\d.]+pt"', "", svg, count=2)
    used = set(re.findall(r'(?:url\(|href=")#([\w.-]+)', svg))
    svg = re.sub(r' id="([^"]*)"', lambda m: m[0] if m[1] in used else "", svg)
    svg = re.sub(r'( id="|url\(#|href="#)', rf"\g<1>{prefix}", svg)
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)
    svg = re.sub(r"\s*\n\s*", " ", svg)
    colours = {_INK: "ink-soft", _GRID: "line", _LEVEL: "ink-soft"}
    colours |= {colour: f"series-{number}" for number, colour in enumerate(_SERIES, 1)}
    for colour, variable in colours.items():
        svg = svg.replace(colour, f"var(--{variable})")
    return svg.replace("<svg ", '<svg aria-hidden="true" focusable="false" ', 1)
