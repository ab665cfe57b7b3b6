"""Gives every test four virtual CPUs, and keeps each worker of pytest-xdist to its own core."""

# ruff: noqa: I001  (simclr_tf chooses Keras 2, so it is imported before TensorFlow)

from collections.abc import Iterator
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
# XLA then compiles a third faster, for functions that run a few times. `make test-all` keeps its
# optimization.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
# Threads of scikit-learn that wait for each other spin, for a minute where other work is running.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pathlib
import shutil

import pytest

import simclr_tf
import tensorflow as tf
from tensorflow.python.client import pywrap_tf_session
from tensorflow.python.data.ops import multi_device_iterator_ops
from tensorflow.python.util import tf_stack

from simclr_tf.commands import report, train
from simclr_tf.data import iterators
from simclr_tf.serving import export, reloading
from simclr_tf.training import memory
import program_server
import quick_program  # What it leaves out, no test of a run looks at.
import quick_tensorflow
import tiny_runs

NUM_VIRTUAL_CPUS = 4
# The files that take longest, the longest first. The first one waits for a download.
LONGEST = [
    *(
        "tpu_compile",
        "two_workers",
        "tutorials",
        "notebooks",
        "benchmarks",
        "every_setting",
        "transfer",
        "objectives_program",
        "program",
        "augment_on",
    ),
    *("checkpoints", "supcon_recipes", "accumulation", "reference_files", "study_program"),
    *("steps", "reference_export", "supcon", "pipeline", "reference_model", "policies", "export"),
    *("keras_encoders", "views", "data_commands", "sources", "demo", "sizes", "validation"),
    *("unopenable_files", "serving_contract", "few_labels", "weights", "resuming", "wheel"),
]

# Files whose tests CI also runs with Keras 3, beside the tests that are marked keras3.
OF_KERAS = (
    *("batch_norm", "keras_encoders", "keras_versions", "lars", "rmsprop"),
    *("simclr", "user_encoders"),
)

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    NUM_VIRTUAL_CPUS * [tf.config.LogicalDeviceConfiguration()],
)
quick_tensorflow.apply()
if "PYTEST_XDIST_WORKER" in os.environ:
    tf.config.threading.set_intra_op_parallelism_threads(1)

# Whenever the garbage collector finds iterators of the tests' own data sets, it would wait for
# their tuning threads, for minutes in all. Strategies make the second kind of iterators.
_tuned_iterator = tf.data.Dataset.__iter__
tf.data.Dataset.__iter__ = lambda dataset: _tuned_iterator(iterators.without_tuning(dataset))
_tuned_on_devices = multi_device_iterator_ops.OwnedMultiDeviceIterator.__init__


def _untuned_on_devices(iterator, dataset=None, *args, **named):
    untuned = None if dataset is None else iterators.without_tuning(dataset)
    _tuned_on_devices(iterator, untuned, *args, **named)


multi_device_iterator_ops.OwnedMultiDeviceIterator.__init__ = _untuned_on_devices

# A report takes a third of a second after each of hundreds of runs; `with_reports` writes it.
_write_after_run = report.write_after_run
report.write_after_run = lambda model_dir: None


def pytest_sessionstart(session: pytest.Session) -> None:
    """Makes the program print wide lines, whatever the width of pytest's output.

    Tests look for paths in what is printed, and temporary folders may be of any length.
    """
    if session.config.pluginmanager.has_plugin("terminalreporter"):  # Workers have none.
        writer = session.config.get_terminal_writer()
        writer.fullwidth = writer.fullwidth  # Computed once, not for every line.
    os.environ["COLUMNS"] = "500"
    quick_tensorflow.spare_collector()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Runs long files first, so that no worker waits for another one's at the end.

    With Keras 3, tests that are marked as of Keras 2 are skipped, with the reason in their mark.
    """
    ranks = {f"test_{name}.py": rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path.name, len(ranks)))
    for item in items:
        slow = item.get_closest_marker("slow") or item.get_closest_marker("exhaustive")
        if item.path.name in {f"test_{name}.py" for name in OF_KERAS} and not slow:
            item.add_marker(pytest.mark.keras3)
    for item in items if simclr_tf.KERAS == 3 else ():
        only_2 = item.get_closest_marker("keras2")
        if only_2 is not None:
            item.add_marker(pytest.mark.skip(reason=only_2.kwargs["reason"]))


@pytest.fixture(scope="session")
def golden() -> pathlib.Path:
    """The folder of golden values; its README.md says how they were computed."""
    return pathlib.Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def shared() -> pathlib.Path:
    """The folder of real images and real weights, which a user's clone does not have."""
    folder = pathlib.Path(__file__).parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("no reference data beside this clone")
    return folder


@pytest.fixture(scope="session")
def python() -> Iterator[str]:
    """What runs programs like Python, but does not import TensorFlow for each of them again."""
    with program_server.start() as path:
        yield path


@pytest.fixture
def stacks_of_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets errors quote the code that made an operation, as they do outside these tests."""
    monkeypatch.setattr(tf_stack, "extract_stack", quick_tensorflow.EXTRACT_STACK)
    monkeypatch.setattr(pywrap_tf_session, "TF_SetOpStackTrace", quick_tensorflow.SET_STACK)


@pytest.fixture
def photos(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A labelled folder of images; copy it before changing it."""
    return tiny_runs.photos(tmp_path_factory)


@pytest.fixture
def pretrained(tmp_path_factory: pytest.TempPathFactory, tmp_path: pathlib.Path) -> pathlib.Path:
    """A copy of a finished pretraining run on `photos`."""
    finished = tiny_runs.pretrained(tmp_path_factory)
    return pathlib.Path(shutil.copytree(finished, tmp_path / "pretrained"))


@pytest.fixture
def no_export(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skips the SavedModel and the image of views of runs, which take seconds."""
    _skip_export(monkeypatch)


@pytest.fixture(scope="module")
def no_export_in_file() -> Iterator[None]:
    """Does the same for all tests and fixtures of a file."""
    with pytest.MonkeyPatch.context() as patch:
        _skip_export(patch)
        yield


def _skip_export(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(export, "export", lambda *_, **__: "")
    patch.setattr(train, "_show_views", lambda *_: None)


@pytest.fixture
def with_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets runs write their reports, as they do outside these tests."""
    monkeypatch.setattr(report, "write_after_run", _write_after_run)


@pytest.fixture
def with_fresh_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets exports be checked in a process of their own, as they are outside these tests."""
    monkeypatch.setattr(reloading, "fresh_process", quick_program.FRESH_PROCESS)


@pytest.fixture
def with_memory_estimates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets runs estimate the memory of a step, as they do outside these tests."""
    monkeypatch.setattr(memory, "estimate", quick_program.ESTIMATE_MEMORY)
