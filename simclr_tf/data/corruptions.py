"""Common corruptions of images (Hendrycks and Dietterich 2019), by the package imagecorruptions.

Only made where they are needed: the package is an optional one, and its import takes seconds. This
module imports no TensorFlow, because the processes that make corrupted images import it.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent import futures
import contextlib
import functools
import multiprocessing
import os
import signal
import sys
from typing import Any

import numpy as np

from simclr_tf import errors
from simclr_tf.data import corruption_names

# These draw from a generator of their own, and the others from NumPy's global one.
_SEEDED = ("impulse_noise", "glass_blur")
# Processes start in seconds, which fewer images are not worth.
_FEW = 2000
_IMAGES_PER_TASK = 16


def corrupt(
    images: np.ndarray, positions: np.ndarray, name: str, severity: int, *, seed: int
) -> np.ndarray:
    """Corrupts images, each as a function of the seed, its position, the corruption and severity.

    Args:
        images: (n, s, s, 3) uint8, with s at least `corruption_names.MIN_SIDE`.
        positions: (n,) numbers of the images, by which their random numbers differ.
        name: one of `corruption_names.NAMES`.
        severity: 1 to 5.
        seed: the seed.

    Returns:
        (n, s, s, 3) uint8.

    Raises:
        UserError: if the package cannot be imported.
    """
    package, number = _package(), corruption_names.NAMES.index(name)
    corrupted = np.empty_like(images)
    state = np.random.get_state()  # The package draws from the global generator.
    try:
        # It prints about images of some sizes, which is harmless.
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            for i, (image, position) in enumerate(zip(images, positions, strict=True)):
                words = np.random.SeedSequence((seed, int(position), number, severity))
                drawn = words.generate_state(4)
                np.random.seed(drawn)
                own = {"seed": int(drawn[0])} if name in _SEEDED else {}
                corrupted[i] = package.corrupt(
                    image, corruption_name=name, severity=severity, **own
                )
    finally:
        np.random.set_state(state)
    return corrupted


class Workers:
    """Corrupts images in several processes, or in this one if there are few."""

    def __init__(self, pool: futures.ProcessPoolExecutor | None) -> None:
        """Uses a pool of processes, or this process if it is None; see `workers`."""
        self._pool = pool

    @property
    def in_processes(self) -> bool:
        """Whether other processes do the work."""
        return self._pool is not None

    def corrupt(
        self, images: np.ndarray, positions: np.ndarray, name: str, severity: int, *, seed: int
    ) -> np.ndarray:
        """Returns what the function `corrupt` returns.

        Raises:
            UserError: as `corrupt`, or if a process ended.
        """
        task = functools.partial(corrupt, name=name, severity=severity, seed=seed)
        if self._pool is None:
            return task(images, positions)
        starts = range(0, len(images), _IMAGES_PER_TASK)
        slices = [slice(start, start + _IMAGES_PER_TASK) for start in starts]
        try:
            made = self._pool.map(
                task, [images[one] for one in slices], [positions[one] for one in slices]
            )
            return np.concatenate(list(made))
        except futures.BrokenExecutor as error:
            raise errors.UserError(
                f"A process that makes images with {name} ended, probably because memory ran out; "
                "free some, or lower --corruption_examples."
            ) from error


@contextlib.contextmanager
def workers(images: int) -> Iterator[Workers]:
    """Starts as many processes as there are cores, and ends them; none for few images.

    Args:
        images: number of corrupted images to make.
    """
    cores = _cores()
    if images < _FEW or cores == 1:
        yield Workers(None)
        return
    # A fork would copy the threads and locks of TensorFlow.
    context = multiprocessing.get_context("spawn")
    pool = futures.ProcessPoolExecutor(cores, context, initializer=_ignore_interrupts)
    try:
        yield Workers(pool)
    finally:
        pool.shutdown(cancel_futures=True)


def _cores() -> int:
    """Returns the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Not on every system.
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _ignore_interrupts() -> None:
    """Leaves Ctrl-C to the process that started this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@functools.cache
def _package() -> Any:
    """Returns the package imagecorruptions.

    Raises:
        UserError: if it cannot be imported.
    """
    try:
        import imagecorruptions
    except ImportError as error:
        package = corruption_names.PACKAGE
        raise errors.UserError(
            f"The package {package} cannot be imported ({error}); install it with "
            f"{sys.executable} -m pip install {package}, and what it misses, or name a prepared "
            "data set by --corrupted_dataset."
        ) from error
    return imagecorruptions
