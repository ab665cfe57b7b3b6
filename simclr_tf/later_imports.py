"""Imports in a thread, during the first step, the packages that only evaluation and reports need.

These imports take seconds, and TensorFlow prepares the first step on one core.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import importlib
import threading
from typing import TypeVar

from simclr_tf import errors, text

_Result = TypeVar("_Result")

# What evaluation and the report import when they begin. So a package that is missing ends the
# program in its first minute, not after hours of training.
OF_EVALUATION = ("scipy.stats", "sklearn.metrics", "sklearn.model_selection")
OF_REPORT = ("matplotlib.figure", "matplotlib.ticker")


def import_now(modules: Sequence[str]) -> None:
    """Imports modules, in this order.

    Raises:
        UserError: if one cannot be imported.
    """
    imports = LaterImports(modules)
    imports.run()
    imports.finish()


class LaterImports:
    """The imports of a program that is training, in a thread."""

    def __init__(self, modules: Sequence[str]) -> None:
        """Prepares to import modules, in this order."""
        self._modules = modules
        self._failed: tuple[str, Exception] | None = None
        self._thread: threading.Thread | None = None

    def beside(self, train: Callable[[int], _Result]) -> Callable[[int], _Result]:
        """Returns a function that also imports, beginning with its first call.

        Raises:
            UserError: by any call after a module could not be imported.
        """

        def call(count: int) -> _Result:
            if self._thread is None:
                self._thread = threading.Thread(target=self.run)
                self._thread.start()
            result = train(count)
            self._check()
            return result

        return call

    def finish(self) -> None:
        """Waits for the imports, if they have begun.

        Raises:
            UserError: if a module could not be imported.
        """
        if self._thread is not None:
            self._thread.join()
        self._check()

    def run(self) -> None:
        """Imports the modules in this thread; `finish` raises the error, if there is one."""
        for name in self._modules:
            try:
                importlib.import_module(name)
            except Exception as error:  # Packages that do not fit together raise anything.
                self._failed = name, error
                return

    def _check(self) -> None:
        if self._failed is not None:
            name, error = self._failed
            raise errors.UserError(
                f"{name} cannot be imported ({type(error).__name__}: {text.reason(error)}), which "
                "evaluation or the report needs; run pip install -r requirements.txt, and the same "
                "command again."
            ) from error
