"""L-BFGS for logistic regressions, in coordinates in which the loss is curved alike everywhere.

Features are correlated, most of all pixels: along some directions their variance is thousands of
times that along others, and so is the curvature of the loss. L-BFGS then takes hundreds of
iterations. In the coordinates of `Coordinates` it takes tens.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses

import numpy as np
import scipy

# Converged is where no entry of the gradient of the mean loss is larger: 1e-4 as in scikit-learn,
# or a fraction of the loss. Of classes that can be separated, the loss itself falls below 1e-4 if
# the penalty is weak, so that every direction would do.
_TOLERANCE, _OF_LOSS = 1e-4, 1e-2
# Where floats do not get any further: the fraction of the loss that could still be gained.
_NOTHING_LEFT = 1e-6
_MAX_LINE_SEARCH = 50
# Added to the variances, whose numbers are rounded; where that is not enough, ten times as much. A
# smaller one makes the first step very long where features vary least.
_LEAST_VARIANCE = 1e-2
# Of more features, the matrices would take gigabytes.
_MOST_FEATURES = 8192
# (k, f + 1) weights and biases -> mean loss with its penalty, and its gradient (k, f + 1).
Objective = Callable[[np.ndarray], tuple[float, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Coordinates:
    """Coordinates for weights (k, f) of classes.

    Attributes:
        factor: (f, f) float32, lower triangular: weights times it are the coordinates.
        bias: the factor of the biases.
    """

    factor: np.ndarray
    bias: float

    @classmethod
    def of(cls, moments: np.ndarray, num_classes: int, penalty: float) -> Coordinates:
        """Returns those in which the second derivatives of the loss are about 1.

        At weights of zero, each of k classes has the probability 1 / k. The second derivatives by
        the weights of a class are then (1 - 1/k) / k times the moments of the features, plus the
        penalty.

        Args:
            moments: (f, f), the means of the products of two standardised features.
            num_classes: k.
            penalty: factor of half of the squared weights in the mean loss.
        """
        curvature = (1 - 1 / num_classes) / num_classes
        added = _LEAST_VARIANCE
        while True:
            second = (curvature * moments).T  # It is symmetric, and transposed in LAPACK's order.
            second[np.diag_indices_from(second)] += penalty + curvature * added
            try:
                factor = scipy.linalg.cholesky(
                    second, lower=True, overwrite_a=True, check_finite=False
                )
                return cls(factor, float(np.sqrt(curvature)))
            except scipy.linalg.LinAlgError:
                added *= 10

    def to(self, parameters: np.ndarray) -> np.ndarray:
        """Returns the coordinates of weights and biases (k, f + 1)."""
        weights = parameters[:, :-1].astype(np.float32) @ self.factor
        return np.column_stack([weights, parameters[:, -1] * self.bias])

    def back(self, coordinates: np.ndarray) -> np.ndarray:
        """Returns the weights and biases (k, f + 1) of coordinates."""
        weights = self._solve(coordinates[:, :-1], trans=1)
        return np.column_stack([weights, coordinates[:, -1] / self.bias])

    def gradient(self, gradient: np.ndarray) -> np.ndarray:
        """Returns the gradient by the coordinates, given that by weights and biases (k, f + 1)."""
        by_weights = self._solve(gradient[:, :-1], trans=0)
        return np.column_stack([by_weights, gradient[:, -1] / self.bias])

    def _solve(self, rows: np.ndarray, trans: int) -> np.ndarray:
        found = scipy.linalg.solve_triangular(
            self.factor, rows.T.astype(np.float32), lower=True, trans=trans, check_finite=False
        )
        return found.T


@dataclasses.dataclass(frozen=True)
class _Same:
    """The weights and biases themselves as coordinates."""

    def to(self, parameters: np.ndarray) -> np.ndarray:
        return parameters

    back = gradient = to


def suits(count: int, width: int, num_classes: int) -> bool:
    """Returns whether `Coordinates` pay for a number of rows of features of some width.

    Passes over few rows are cheaper than solving with the factor, and a single class has no loss.
    """
    return width <= min(count, _MOST_FEATURES) and num_classes > 1


class _ConvergedError(Exception):
    """Ends the iterations at the parameters in its argument."""


def minimise(
    objective: Objective,
    start: np.ndarray,
    coordinates: Coordinates | None,
    max_iterations: int,
) -> tuple[np.ndarray, bool]:
    """Minimises a loss by L-BFGS.

    Args:
        objective: the loss.
        start: (k, f + 1) where to start.
        coordinates: those of the iterations; None for weights and biases themselves.
        max_iterations: limit of the iterations.

    Returns:
        The weights and biases (k, f + 1), and whether they converged before the limit.
    """
    used = coordinates or _Same()

    def of_coordinates(flat: np.ndarray) -> tuple[float, np.ndarray]:
        parameters = used.back(flat.reshape(start.shape))
        loss, gradient = objective(parameters)
        if np.max(np.abs(gradient)) <= min(_TOLERANCE, _OF_LOSS * loss):
            raise _ConvergedError(parameters)
        return loss, used.gradient(gradient).ravel()

    options = {
        "maxiter": max_iterations,
        "maxls": _MAX_LINE_SEARCH,
        "gtol": 0.0,  # It would be that of the coordinates.
        "ftol": 64 * np.finfo(np.float64).eps,
    }
    try:
        found = scipy.optimize.minimize(
            of_coordinates, used.to(start).ravel(), method="L-BFGS-B", jac=True, options=options
        )
    except _ConvergedError as end:
        return end.args[0], True
    # With the second derivatives of 1, half of the squared gradient is what could still be gained.
    left = 0.5 * np.sum(found.jac**2)
    converged = found.status == 0 and left <= _NOTHING_LEFT * max(1.0, found.fun)
    return used.back(found.x.reshape(start.shape)), bool(converged)
