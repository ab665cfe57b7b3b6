"""Imported before a program: it neither estimates its memory nor loads exports in fresh processes.

See `program_server.SETUP`. conftest.py leaves out the same in the processes of the tests.
"""

from collections.abc import Iterator
import contextlib

from simclr_tf.serving import reloading
from simclr_tf.training import memory


@contextlib.contextmanager
def _no_process() -> Iterator[reloading.FreshProcess]:
    yield reloading.FreshProcess(None)


memory.estimate = lambda *_, **__: memory.Estimate(0, 0, 0)
reloading.fresh_process = _no_process
