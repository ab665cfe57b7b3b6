"""What features still know of an image's colour, rotation, noise and texture (SimCLR, table 3)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import textwrap
from typing import TYPE_CHECKING
import warnings

import numpy as np

from simclr_tf.evaluation import intervals, linear, outcome

if TYPE_CHECKING:
    from matplotlib import figure

FEATURES, PROJECTION = "features", "projection"
_WHAT = {FEATURES: "h", PROJECTION: "g(h)"}
_HIDDEN, _MAX_EPOCHS = 512, 100


@dataclasses.dataclass(frozen=True)
class Task:
    """A task: to find out from the representation what was done to an image.

    Attributes:
        name: its name in result.json.
        question: what is distinguished, for people.
        train: name of a representation -> (n, w) float32, of the images to learn from.
        train_labels: (n,) what was done to them, 0 to k - 1.
        test: as `train`, of other images.
        test_labels: (m,).
    """

    name: str
    question: str
    train: Mapping[str, np.ndarray]
    train_labels: np.ndarray
    test: Mapping[str, np.ndarray]
    test_labels: np.ndarray


def evaluate(
    tasks: Sequence[Task], *, seed: int, progress: Callable[[int], None] = lambda tasks: None
) -> outcome.Outcome:
    """Returns the accuracy of a linear and of a nonlinear classifier for every task.

    Chance is always answering what is most frequent among the images to learn from.

    Args:
        tasks: the tasks.
        seed: seed of the classifiers.
        progress: called with the number of finished tasks.
    """
    result = outcome.Outcome()
    table = [["task", "representation", "classifier", "accuracy", "low", "high", "chance"]]
    for done, task in enumerate(tasks, 1):
        most_frequent = np.argmax(np.bincount(task.train_labels))
        chance = float(np.mean(task.test_labels == most_frequent))
        result.numbers[f"probes/{task.name}/chance"] = chance
        for representation in task.train:
            shown = []
            for kind, classify in (("linear", _linear), ("mlp", _nonlinear)):
                found = intervals.accuracy(classify(task, representation, seed) == task.test_labels)
                name = f"probes/{task.name}/{representation}/{kind}"
                result.numbers[name] = found.value
                result.numbers[f"{name}_95"] = [found.low, found.high]
                table.append(
                    [task.name, representation, kind, *(f"{x:.4f}" for x in (*found, chance))]
                )
                shown.append(found.percent())
            what = f"{task.question}, from {_WHAT[representation]} (chance {chance:.1%})"
            result.rows.append((what, f"linear {shown[0]}, one hidden layer {shown[1]}"))
        progress(done)
    result.tables["probes.csv"] = table
    result.figures["probes.svg"] = lambda target: draw(tasks, result, target)
    return result


def _linear(task: Task, representation: str, seed: int) -> np.ndarray:
    """Returns the answers (m,) of a logistic regression."""
    fit = linear.fit(
        task.train[representation],
        task.train_labels,
        num_classes=int(task.train_labels.max()) + 1,
        seed=seed,
    )
    return np.argmax(fit.scores(task.test[representation]), 1)


def _nonlinear(task: Task, representation: str, seed: int) -> np.ndarray:
    """Returns the answers (m,) of a network with one hidden layer, stopped on a held-out tenth."""
    from sklearn import exceptions, neural_network, pipeline, preprocessing

    classifier = pipeline.make_pipeline(
        preprocessing.StandardScaler(),
        neural_network.MLPClassifier(
            _HIDDEN, early_stopping=True, max_iter=_MAX_EPOCHS, random_state=seed
        ),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", exceptions.ConvergenceWarning)
        classifier.fit(task.train[representation], task.train_labels)
    return classifier.predict(task.test[representation])


def draw(tasks: Sequence[Task], result: outcome.Outcome, target: figure.Figure) -> None:
    """Draws the accuracies with their intervals, and chance, into an empty figure."""
    axes = target.subplots()
    kinds = [(name, kind) for name in tasks[0].train for kind in ("linear", "mlp")]
    width = 0.8 / len(kinds)
    for number, (representation, kind) in enumerate(kinds):
        names = [f"probes/{task.name}/{representation}/{kind}" for task in tasks]
        values = np.array([result.numbers[name] for name in names])
        ends = np.array([result.numbers[f"{name}_95"] for name in names]).T
        axes.bar(
            np.arange(len(tasks)) + (number - (len(kinds) - 1) / 2) * width,
            values,
            width,
            yerr=np.abs(ends - values),
            label=f"{_WHAT[representation]}, {'one hidden layer' if kind == 'mlp' else 'linear'}",
            color=f"C{0 if representation == FEATURES else 1}",
            alpha=1.0 if kind == "linear" else 0.6,
            error_kw={"elinewidth": 1},
        )
    places = np.arange(len(tasks))
    chances = [result.numbers[f"probes/{task.name}/chance"] for task in tasks]
    axes.hlines(
        chances, places - 0.45, places + 0.45, colors="black", linestyles="dotted", label="chance"
    )
    axes.set_xticks(places, [textwrap.fill(task.question, 16) for task in tasks])
    axes.set_ylim(0, 1.02)
    axes.set_ylabel("accuracy")
    target.legend(loc="outside lower center", ncols=3)
