"""Multinomial logistic regression on standardised features, with a penalty on the squared weights.

Two solvers minimise the same objective by L-BFGS. For large data, loss and gradient are computed by
TensorFlow on all devices; otherwise by NumPy.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from contextlib import AbstractContextManager
import dataclasses
import functools

import numpy as np
import tensorflow as tf
import threadpoolctl

from simclr_tf.evaluation import minimisation

# Multiply-adds of one pass over the features from which TensorFlow's solver is used. For 10 classes
# and 512 features or more, a pass takes about half of the processor time of NumPy's; for 64
# features, as much. In smaller passes, NumPy's calls are faster.
LARGE = 3 * 10**7
# Features from which NumPy and SciPy may use several threads. Of fewer, on two cores, two threads
# waited for each other longer than they computed: two to three times the processor time of one
# thread, and 10 times the wall time where other programs ran.
_SEVERAL_THREADS = 4096
# Bytes of standardised features up to which TensorFlow's solver keeps them on the devices.
_MOST_KEPT = 2**29
_ROWS_AT_ONCE = 8192


@dataclasses.dataclass(frozen=True)
class Scaling:
    """Mean and standard deviation of every feature.

    Attributes:
        mean: (f,) float32.
        scale: (f,) float32, 1 for a feature that is constant.
    """

    mean: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray) -> Scaling:
        """Returns those of features (n, f), in float64 and without a copy of all of them."""
        blocks = range(0, len(features), _ROWS_AT_ONCE)
        sums = [features[i : i + _ROWS_AT_ONCE].sum(0, dtype=np.float64) for i in blocks]
        mean = np.sum(sums, 0) / len(features)
        squares = [((features[i : i + _ROWS_AT_ONCE] - mean) ** 2).sum(0) for i in blocks]
        scale = np.sqrt(np.sum(squares, 0) / len(features))
        # The deviations of equal numbers from their rounded mean are not 0.
        info = np.finfo(np.float32)
        constant = (scale <= 10 * info.eps * np.abs(mean)) | (scale < info.tiny)
        return cls(mean.astype(np.float32), np.where(constant, 1.0, scale).astype(np.float32))

    def apply(self, features: np.ndarray) -> np.ndarray:
        """Returns features (n, f), standardised."""
        return (features - self.mean) / self.scale


@dataclasses.dataclass(frozen=True, eq=False)
class Features:
    """Features to fit, all of them or some.

    Attributes:
        values: (n, f) float32.
        scaling: mean and standard deviation of all of them, by which they are standardised.
    """

    values: np.ndarray
    scaling: Scaling

    @classmethod
    def of(cls, values: np.ndarray) -> Features:
        """Returns features (n, f) with their own scaling."""
        return cls(values, Scaling.of(values))

    @functools.cached_property
    def moments(self) -> np.ndarray:
        """The means (f, f) float32 of the products of two standardised features, over all rows.

        Raises:
            ValueError: if they are not finite.
        """
        width, devices = self.values.shape[1], _devices()
        total = np.zeros((width, width))
        for number, start in enumerate(range(0, len(self.values), _ROWS_AT_ONCE)):
            with tf.device(devices[number % len(devices)]):
                rows = tf.constant(self.values[start : start + _ROWS_AT_ONCE], tf.float32)
                total += _products(rows, self.scaling.mean, self.scaling.scale).numpy()
        if not np.all(np.isfinite(total)):
            raise ValueError("The features to fit are too large.")
        return (total / len(self.values)).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Solution:
    """A minimum, or where the iterations ended.

    Attributes:
        weights: (k, f) float32, of standardised features.
        biases: (k,) float32.
        converged: whether it was found before the limit of the iterations.
    """

    weights: np.ndarray
    biases: np.ndarray
    converged: bool


class Solver(abc.ABC):
    """Fits classifiers to the same features and labels; subclasses compute loss and gradient."""

    def __init__(self, features: Features, labels: np.ndarray, rows: np.ndarray) -> None:
        """See `solver`."""
        self._data, self._count = features, len(rows)
        self._classes = int(labels.max()) + 1

    def fit(self, strength: float, start: Solution | None, max_iterations: int) -> Solution:
        """Minimises strength * (sum of cross-entropies) + |weights|^2 / 2.

        Args:
            strength: inverse strength of the penalty.
            start: where to start; None for zeros.
            max_iterations: limit of the iterations.
        """
        width = self._data.values.shape[1]
        initial = np.zeros((self._classes, width + 1))
        if start is not None:
            initial = np.column_stack([start.weights, start.biases]).astype(np.float64)
        # Of two classes, scikit-learn penalises the difference d of their weights. Here these are
        # d / 2 and -d / 2, whose squares sum to half of that.
        penalty = 1 / (strength * self._count) * (2 if self._classes == 2 else 1)
        with threadpoolctl.threadpool_limits(1 if width < _SEVERAL_THREADS else None):
            coordinates = None
            if minimisation.suits(self._count, width, self._classes):
                # The moments of all features, and not of these rows, in which some may be constant.
                moments = self._data.moments
                coordinates = minimisation.Coordinates.of(moments, self._classes, penalty)
            found, converged = minimisation.minimise(
                lambda parameters: self.objective(parameters, penalty),
                initial,
                coordinates,
                max_iterations,
            )
        weights = found.astype(np.float32)
        return Solution(weights[:, :-1], weights[:, -1], converged)

    @abc.abstractmethod
    def objective(self, parameters: np.ndarray, penalty: float) -> tuple[float, np.ndarray]:
        """Returns the mean loss with the penalty, and its gradient, (k, f + 1) float64.

        Args:
            parameters: (k, f + 1) weights and biases.
            penalty: factor of half of the squared weights.
        """


class NumPy(Solver):
    """Computes loss and gradient by NumPy, on a standardised copy of the features."""

    def __init__(self, features: Features, labels: np.ndarray, rows: np.ndarray) -> None:
        """See `solver`."""
        super().__init__(features, labels, rows)
        self._features = features.scaling.apply(features.values[rows])
        self._labels = labels[rows]

    def objective(self, parameters: np.ndarray, penalty: float) -> tuple[float, np.ndarray]:
        """See `Solver.objective`."""
        weights, biases = parameters[:, :-1], parameters[:, -1]
        logits = self._features @ weights.T.astype(np.float32) + biases.astype(np.float32)
        logits -= np.max(logits, 1, keepdims=True)
        of_label = logits[np.arange(self._count), self._labels]
        residual = np.exp(logits)  # (n, k)
        sums = np.sum(residual, 1, keepdims=True)
        loss = np.mean(np.log(sums[:, 0]) - of_label, dtype=np.float64)
        residual /= sums
        residual[np.arange(self._count), self._labels] -= 1
        by_weights = (residual.T @ self._features).astype(np.float64) / self._count
        by_biases = np.mean(residual, 0, dtype=np.float64)
        loss += penalty / 2 * np.sum(weights**2)
        return float(loss), np.column_stack([by_weights + penalty * weights, by_biases])


class TensorFlow(Solver):
    """Computes loss and gradient by TensorFlow, in blocks of rows.

    The blocks are spread over the accelerators, or computed by the CPU if there are none. They are
    standardised once and kept, or in every pass if they are too large, so that there is no copy of
    all features. Sums over blocks are in float64.
    """

    def __init__(
        self,
        features: Features,
        labels: np.ndarray,
        rows: np.ndarray,
        devices: Sequence[str] | None = None,
    ) -> None:
        """See `solver`; `devices` are the names of those to use, by default all accelerators."""
        super().__init__(features, labels, rows)
        self._labels = labels
        self._devices = _devices() if devices is None else list(devices)
        self._rows = [rows[i : i + _ROWS_AT_ONCE] for i in range(0, len(rows), _ROWS_AT_ONCE)]
        self._kept: list[tuple[tf.Tensor, tf.Tensor]] = []
        if len(rows) * features.values.shape[1] * tf.float32.size <= _MOST_KEPT:
            self._kept = [self._block(number) for number in range(len(self._rows))]

    def objective(self, parameters: np.ndarray, penalty: float) -> tuple[float, np.ndarray]:
        """See `Solver.objective`."""
        weights, biases = parameters[:, :-1], parameters[:, -1]
        tensors = []  # All are started before the first is waited for.
        for number in range(len(self._rows)):
            features, labels = self._kept[number] if self._kept else self._block(number)
            with self._device(number):
                of_classes = tf.constant(weights.T, tf.float32), tf.constant(biases, tf.float32)
                tensors.append(_loss_and_gradient(features, labels, *of_classes))
        loss, by_weights, by_biases = (
            np.sum([np.asarray(part, np.float64) for part in parts], 0) / self._count
            for parts in zip(*tensors)
        )
        loss += penalty / 2 * np.sum(weights**2)
        return float(loss), np.column_stack([by_weights.T + penalty * weights, by_biases])

    def _block(self, number: int) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the standardised features (b, f) of a block, and its labels (b,)."""
        rows, scaling = self._rows[number], self._data.scaling
        with self._device(number):
            values = tf.constant(self._data.values[rows], tf.float32)
            labels = tf.constant(self._labels[rows], tf.int32)
            return (values - scaling.mean) / scaling.scale, labels

    def _device(self, number: int) -> AbstractContextManager[None]:
        return tf.device(self._devices[number % len(self._devices)])


def solver(features: Features, labels: np.ndarray, *, rows: np.ndarray | None = None) -> Solver:
    """Returns the solver that suits the size of the data.

    Args:
        features: n features.
        labels: (n,) positions of the classes, 0 to k - 1, all of which occur.
        rows: which of them to fit; None for all.

    Raises:
        ValueError: if a feature is not finite.
    """
    if not np.all(np.isfinite([features.scaling.mean, features.scaling.scale])):
        raise ValueError("The features to fit have values that are not finite, or too large.")
    rows = np.arange(len(labels)) if rows is None else rows
    large = len(rows) * _work(features.values[:1], labels) >= LARGE
    return (TensorFlow if large else NumPy)(features, labels, rows)


def _work(features: np.ndarray, labels: np.ndarray) -> int:
    """Returns the multiply-adds of one pass over features (n, f), with the classes of labels."""
    return features.size * (int(labels.max()) + 1)


def _devices() -> list[str]:
    """Returns the names of the accelerators, or of the CPU if there are none."""
    for kind in ("TPU", "GPU"):
        found = tf.config.list_logical_devices(kind)
        if found:
            return [device.name for device in found]
    return ["/cpu:0"]


@functools.partial(tf.function, reduce_retracing=True, autograph=False)
def _loss_and_gradient(
    features: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor, biases: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns the summed cross-entropy of rows (b, f), and its gradient by weights and biases.

    The features are standardised before: applied to the weights, the means would be multiplied by
    rounding errors.

    Args:
        features: (b, f), standardised.
        labels: (b,) positions of the classes.
        weights: (f, k).
        biases: (k,).
    """
    log_probabilities = tf.nn.log_softmax(tf.matmul(features, weights) + biases)
    one_hot = tf.one_hot(labels, tf.shape(biases)[0])
    loss = -tf.reduce_sum(one_hot * log_probabilities)
    residual = tf.exp(log_probabilities) - one_hot  # (b, k)
    return loss, tf.matmul(features, residual, transpose_a=True), tf.reduce_sum(residual, 0)


def _products(features: tf.Tensor, mean: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
    """Returns (f, f), the summed products of two standardised features of rows (b, f)."""
    standardised = (features - mean) / scale
    return tf.matmul(standardised, standardised, transpose_a=True)
