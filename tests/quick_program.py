"""Imported before a run: it neither estimates its memory nor loads exports in fresh processes.

The estimate traces the step once more, and a fresh process imports TensorFlow. Fixtures of
conftest.py give single tests what is left out; programs that tests start import this module by
`program_server.SETUP`.
"""

from collections.abc import Iterator
import contextlib

from simclr_tf.serving import reloading
from simclr_tf.training import memory

ESTIMATE_MEMORY, FRESH_PROCESS = memory.estimate, reloading.fresh_process


@contextlib.contextmanager
def _no_process() -> Iterator[reloading.FreshProcess]:
    yield reloading.FreshProcess(None)


memory.estimate = lambda *_, **__: memory.Estimate(0, 0, 0)
reloading.fresh_process = _no_process
