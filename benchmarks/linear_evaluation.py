"""Measures how long the linear evaluation and the nearest neighbours of some sizes take.

    python benchmarks/linear_evaluation.py                   prints a table
    python benchmarks/linear_evaluation.py --sizes cifar10   measures one size
    python benchmarks/linear_evaluation.py --write           also updates docs/evaluation.md
    python benchmarks/linear_evaluation.py --json            prints a JSON object as the last line
    python benchmarks/linear_evaluation.py --smallest        takes seconds

The features are random: the classes are Gaussians with correlated features, cut off at 0. A linear
evaluation is the whole search for the strength of the regularisation and the last fit. Both
solvers of this package and, for comparison, scikit-learn's L-BFGS are measured in turns, so that
other load on the machine affects all alike. The results are medians.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
import json
import os
import statistics
import sys
import time
from typing import NamedTuple, TypeVar
from unittest import mock
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn import linear_model

from benchmarks import pages
import simclr_tf  # noqa: F401  (chooses Keras 2 before TensorFlow is imported)
from simclr_tf.evaluation import knn, linear, logistic

_PAGE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "docs", "evaluation.md")


class Size(NamedTuple):
    """Numbers of examples to fit and to evaluate, of features and of classes."""

    train: int
    test: int
    features: int
    classes: int


SIZES = {
    "cifar10": Size(50_000, 10_000, 512, 10),
    "cifar10_wide": Size(50_000, 10_000, 2048, 10),
    "cifar100": Size(50_000, 10_000, 512, 100),
}
_SMALLEST = {"smallest": Size(600, 200, 16, 4)}
_T = TypeVar("_T")
Split = tuple[np.ndarray, np.ndarray]


class _ScikitLearn:
    """Fits by scikit-learn, with its defaults, from where another fit ended."""

    def __init__(
        self,
        features: logistic.Features,
        labels: np.ndarray,
        rows: np.ndarray,
    ) -> None:
        self._features = features.scaling.apply(features.values[rows])
        self._labels = labels[rows]

    def fit(
        self, strength: float, start: logistic.Solution | None, max_iterations: int
    ) -> logistic.Solution:
        one = linear_model.LogisticRegression(
            C=strength, max_iter=max_iterations, warm_start=start is not None
        )
        if start is not None:
            one.coef_, one.intercept_ = start.weights.copy(), start.biases.copy()
            one.classes_ = np.unique(self._labels)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # That it has not converged, most often.
            one.fit(self._features, self._labels)
        return logistic.Solution(one.coef_, one.intercept_, converged=True)


_SOLVERS = {
    "scikit-learn": _ScikitLearn,
    "numpy": logistic.NumPy,
    "tensorflow": logistic.TensorFlow,
}


def make(size: Size, seed: int) -> tuple[Split, Split]:
    """Returns random features (n, f) float32 and their classes, to fit and to evaluate."""
    rng = np.random.default_rng(seed)
    # Neighbouring features are correlated, so that the problem is as ill-conditioned as real ones.
    mixing = rng.normal(size=(size.features, size.features)) / np.sqrt(size.features)
    mixing = (mixing * np.geomspace(1, 0.03, size.features)).astype(np.float32)
    centres = rng.normal(size=(size.classes, size.features)).astype(np.float32)
    distance = np.linalg.norm(centres[0] - centres[1])
    centres *= (2.6 + 0.4 * np.log(size.classes)) / distance

    def split(count: int) -> Split:
        labels = rng.integers(size.classes, size=count)
        noise = rng.normal(size=(count, size.features)).astype(np.float32)
        return np.maximum((centres[labels] + noise) @ mixing, 0), labels

    return split(size.train), split(size.test)


def measure(size: Size, rounds: int) -> dict[str, float]:
    """Returns median seconds, and accuracies, of all solvers and of nearest neighbours."""
    train, test = make(size, seed=0)
    seconds: dict[str, list[float]] = {name: [] for name in (*_SOLVERS, "knn")}
    accuracy: dict[str, float] = {}
    counts = [k for k in knn.NEIGHBOURS if k <= size.train]
    for _ in range(rounds):
        for name in _SOLVERS:
            with mock.patch.object(logistic, "solver", _always(_SOLVERS[name])):
                taken, fit = _timed(lambda: linear.fit(*train, num_classes=size.classes, seed=0))
            seconds[name].append(taken)
            accuracy[name] = float(np.mean(np.argmax(fit.scores(test[0]), 1) == test[1]))
        taken, _ = _timed(
            lambda: knn.predictions(*train, test[0], counts, num_classes=size.classes)
        )
        seconds["knn"].append(taken)
    medians = {f"{name}_seconds": statistics.median(times) for name, times in seconds.items()}
    return {**medians, **{f"{name}_accuracy": value for name, value in accuracy.items()}}


def _always(kind: type) -> Callable[..., logistic.Solver]:
    """Returns `logistic.solver` with one solver for all sizes."""

    def solver(
        features: logistic.Features,
        labels: np.ndarray,
        rows: np.ndarray | None = None,
    ) -> logistic.Solver:
        rows = np.arange(len(labels)) if rows is None else rows
        return kind(features, labels, rows)

    return solver


def _timed(call: Callable[[], _T]) -> tuple[float, _T]:
    start = time.monotonic()
    result = call()
    return time.monotonic() - start, result


def markdown(results: dict[str, dict[str, float]]) -> str:
    """Returns the table of docs/evaluation.md."""
    lines = [
        "| training images x features, classes | NumPy | TensorFlow | scikit-learn "
        "| nearest neighbours |",
        "|---|---|---|---|---|",
    ]
    for name, found in results.items():
        size = {**SIZES, **_SMALLEST}[name]
        solvers = " | ".join(
            f"{found[f'{solver}_seconds']:.0f} s, {found[f'{solver}_accuracy']:.2%}"
            for solver in ("numpy", "tensorflow", "scikit-learn")
        )
        lines.append(
            f"| {size.train:,} x {size.features:,}, {size.classes} | {solvers} "
            f"| {found['knn_seconds']:.0f} s |"
        )
    return "\n".join(lines) + "\n"


def _show(results: dict[str, dict[str, float]]) -> None:
    table = Table(title="seconds (median) and accuracy on other examples")
    for heading in ("size", *_SOLVERS, "NumPy / scikit-learn", "nearest neighbours"):
        table.add_column(heading, justify="left" if heading == "size" else "right")
    for name, found in results.items():
        cells = [
            f"{found[f'{solver}_seconds']:.1f} s, {found[f'{solver}_accuracy']:.2%}"
            for solver in _SOLVERS
        ]
        ratio = found["numpy_seconds"] / found["scikit-learn_seconds"]
        table.add_row(name, *cells, f"{ratio:.2f}", f"{found['knn_seconds']:.1f} s")
    Console().print(table)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", choices=SIZES, help="sizes (default: all)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of measurements")
    parser.add_argument("--write", action="store_true", help="update docs/evaluation.md")
    parser.add_argument("--json", action="store_true", help="print a JSON object as the last line")
    parser.add_argument("--smallest", action="store_true", help="600 examples, in seconds")
    arguments = parser.parse_args()
    if arguments.smallest and arguments.write:
        parser.error("--smallest is too small for docs/evaluation.md; leave out --write")
    return arguments


def main() -> None:
    """Measures, and prints the results."""
    arguments = _parse()
    sizes = {name: SIZES[name] for name in arguments.sizes or SIZES}
    if arguments.smallest:
        sizes = _SMALLEST
    results = {name: measure(size, arguments.rounds) for name, size in sizes.items()}
    _show(results)
    if arguments.write:
        pages.replace_table(_PAGE, "linear_evaluation.py", markdown(results))
    if arguments.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
