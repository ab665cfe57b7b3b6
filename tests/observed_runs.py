"""The whole program without its training, and the arguments of the functions that do the work.

A run goes from its command line to checkpoints, metrics and result.json. Only the work in between
is replaced: input, training steps, features and SavedModels. The step that the program made can be
run afterwards, on a fixed batch.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator
import contextlib
import dataclasses
import functools
import inspect
import io
import itertools
import pathlib
import shutil
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tiny_runs

from simclr_tf import distribute, errors, preemption
from simclr_tf.commands import audit, validation
from simclr_tf.data import corruption_names, corruptions, pipeline, shown, sources
from simclr_tf.embeddings import shards
from simclr_tf.evaluation import features, in_memory, linear
from simclr_tf.runs import teachers
from simclr_tf.scoring import trained
from simclr_tf.serving import export, reference_format
from simclr_tf.studies import launchers, schedule
from simclr_tf.training import accumulation, averages, loop, memory, optimizers, steps

Arguments = dict[str, Any]


@dataclasses.dataclass
class Observed:
    """A run that has ended.

    Attributes:
        code: the exit code.
        printed: to stdout and stderr.
        folder: the run directory.
        result: of result.json, if there is one.
        calls: name of a function -> the arguments of each of its calls, by their names.
        returned: name of a function -> what its last call returned.
        batches: the iterator of the training batches, if it came to that.
    """

    code: int
    printed: str
    folder: pathlib.Path
    result: dict[str, Any]
    calls: dict[str, list[Arguments]]
    returned: dict[str, Any]
    batches: Any = None

    def call(self, name: str) -> Arguments:
        """Returns the arguments of the last call of a function."""
        assert self.calls[name], f"{name} was not called:\n{self.printed}"
        return self.calls[name][-1]

    @property
    def model(self) -> Any:
        """The network that was to be trained."""
        return self.call("make_optimizer")["model"]

    @property
    def strategy(self) -> tf.distribute.Strategy:
        """The strategy of the run."""
        return self.returned["make_strategy"]

    @functools.cached_property
    def weights(self) -> list[np.ndarray]:
        """The values of all variables from which training starts."""
        return [variable.numpy() for variable in self.model.variables]

    @functools.cached_property
    def first_step(self) -> tuple[dict[str, float], list[np.ndarray]]:
        """The metrics of the first training step, and the values of all variables after it."""
        return self._step(self.weights)

    @functools.cached_property
    def second_step(self) -> tuple[dict[str, float], list[np.ndarray]]:
        """The same of the second step."""
        return self._step(self.first_step[1])

    def _step(self, before: list[np.ndarray]) -> tuple[dict[str, float], list[np.ndarray]]:
        """Takes a step from some weights, and leaves the network as it was."""
        weights, variables = self.weights, self.model.variables
        for variable, value in zip(variables, before):
            variable.assign(value)
        with eagerly():
            train_steps = loop.compile_steps(self.call("compile_steps")["step"])
            metrics = train_steps(self.batches, 1).totals
        after = [variable.numpy() for variable in variables]
        for variable, value in zip(variables, weights):
            variable.assign(value)
        return metrics, after


@contextlib.contextmanager
def eagerly() -> Iterator[None]:
    """Runs without graphs: to trace or compile one takes longer than to run it once."""
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(False)


class _Places(dict):
    """Folders by name; a name that is not there becomes a new folder, and "new" one each time."""

    def __init__(self, root: pathlib.Path, made: dict[str, pathlib.Path]) -> None:
        super().__init__(made)
        self._root = root
        self._numbers = itertools.count()

    def __missing__(self, name: str) -> pathlib.Path:
        return self._root / (f"new{next(self._numbers)}" if name == "new" else name)


class Runner:
    """Runs the program, each command line once.

    Values may name places: {photos}, {two_classes}, {damaged}, {deep} and {bands} are folders of
    images, {pretrained} and {used} are run directories with checkpoints, {runs} has two without,
    {embedded} holds embeddings, {new} is another folder each time, and every other name is a new
    folder.
    """

    def __init__(self, factory: pytest.TempPathFactory) -> None:
        self._root = factory.mktemp("observed")
        self._numbers = itertools.count()
        photos = tiny_runs.photos(factory)
        made = {
            "photos": photos,
            "two_classes": shutil.copytree(photos, self._root / "two_classes"),
            "damaged": shutil.copytree(photos, self._root / "damaged"),
            "pretrained": shutil.copytree(tiny_runs.pretrained(factory), self._root / "pretrained"),
            "embedded": shutil.copytree(tiny_runs.embedded(factory), self._root / "embedded"),
            "used": shutil.copytree(tiny_runs.pretrained(factory), self._root / "used"),
        }
        self._places = _Places(self._root, made)
        _write_two_runs(self._root / "runs")
        for split in ("train", "test"):
            shutil.rmtree(made["two_classes"] / split / "red")
        _write_deep(photos, self._root / "deep")
        _write_bands(photos, self._root / "bands")
        image = made["damaged"] / "train" / "red" / "3.png"
        image.write_bytes(image.read_bytes()[:100])
        self._seen: dict[tuple, Observed] = {}

    def __call__(self, **settings: Any) -> Observed:
        """Returns the run of a command line: that of `tiny_runs`, changed."""
        key = tuple(sorted(settings.items()))
        if key not in self._seen:
            self._seen[key] = self.run(**settings)
        return self._seen[key]

    def run(self, **settings: Any) -> Observed:
        """Runs it, even if it was run before."""
        filled = {
            name: value.format_map(self._places) if isinstance(value, str) else value
            for name, value in settings.items()
        }
        mode, data_dir = filled.pop("mode", "train"), filled.pop("data_dir", self._places["photos"])
        folder = filled.pop("model_dir", self._root / f"run{next(self._numbers)}")
        printed = io.StringIO()
        observed = Observed(
            0, "", pathlib.Path(folder), {}, collections.defaultdict(list), {}, None
        )
        with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
            _replace_work(patch, observed)
            stack.enter_context(contextlib.redirect_stdout(printed))
            stack.enter_context(contextlib.redirect_stderr(printed))
            observed.code = tiny_runs.main(mode, folder, data_dir, **filled)
        observed.printed = printed.getvalue()
        if (observed.folder / "result.json").exists():
            observed.result = tiny_runs.json_of(observed.folder / "result.json")
        return observed


def _write_deep(photos: pathlib.Path, root: pathlib.Path) -> None:
    """Writes the images of a folder with 16 bits."""
    for path in photos.rglob("*.png"):
        image = tf.cast(tf.io.decode_png(path.read_bytes()), tf.uint16)
        copy = root / path.relative_to(photos)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(tf.io.encode_png(100 * image).numpy())


def _write_bands(photos: pathlib.Path, root: pathlib.Path) -> None:
    """Writes a file for each channel of the images of a folder."""
    for path in photos.rglob("*.png"):
        image = tf.io.decode_png(path.read_bytes())
        copy = root / path.relative_to(photos)
        copy.parent.mkdir(parents=True, exist_ok=True)
        for channel in range(3):
            content = tf.io.encode_png(image[..., channel : channel + 1]).numpy()
            copy.with_name(f"{copy.stem}_{channel}.png").write_bytes(content)


def _write_two_runs(root: pathlib.Path) -> None:
    """Writes the settings and the results of two runs, whose order by name is not by accuracy."""
    for seed, accuracy in enumerate((0.25, 0.75)):
        folder = root / f"seed{seed}"
        folder.mkdir(parents=True)
        (folder / "flags.txt").write_text(f"--dataset=digits\n--seed={seed}\n")
        result = f'{{"global_step": 0, "linear_eval/top_1_accuracy": {accuracy}}}'
        (folder / "result.json").write_text(result)


def _replace_work(patch: pytest.MonkeyPatch, observed: Observed) -> None:
    """Records the calls of functions, and replaces those that take long."""

    def record(module: Any, name: str, replacement: Callable[[Arguments], Any] | None = None):
        real = getattr(module, name)

        def recorded(*args: Any, **named: Any) -> Any:
            bound = inspect.signature(real).bind(*args, **named)
            bound.apply_defaults()
            observed.calls[name].append(dict(bound.arguments))
            returned = replacement(bound.arguments) if replacement else real(*args, **named)
            observed.returned[name] = returned
            return returned

        patch.setattr(module, name, recorded)

    def steps_of(arguments: Arguments) -> Callable[[Any, int], averages.Sums]:
        def train_steps(batches: Any, count: int) -> averages.Sums:
            observed.batches = batches
            totals = {name: float(count) for name in arguments["step"].metrics}
            return averages.Sums(count, 0.0, True, totals)

        return train_steps

    open_source = sources.open_source
    record(preemption.Preemption, "listen")
    record(distribute, "make_strategy")
    record(distribute, "make_deterministic", lambda _: None)  # It would last for other tests.
    record(tf.distribute.cluster_resolver, "TPUClusterResolver", _no_tpu)
    record(sources, "open_source", lambda a: _open(open_source, a))
    record(shown, "choose")
    record(pipeline, "train_batches", _fixed_batches)
    record(optimizers, "make_optimizer")
    record(steps, "whole_step")
    record(accumulation, "chunked_step")
    record(memory, "estimate", lambda _: memory.Estimate(0, 0, 0))
    record(loop, "compile_steps", steps_of)
    record(teachers, "load", _teacher)
    record(features, "extract", _features)
    record(linear, "fit")
    record(validation.Validation, "evaluate", lambda _: None)
    record(shards, "write")
    record(audit, "examine")
    patch.setattr(corruption_names, "is_installed", lambda: True)
    patch.setattr(corruption_names, "MIN_SIDE", 1)
    record(corruptions, "corrupt", lambda a: a["images"])
    record(in_memory.Network, "__call__", _outputs)
    record(export, "export", lambda _: "")
    record(reference_format, "export_reference_model", lambda _: "")
    record(trained, "score")
    record(launchers, "make")
    record(schedule, "train_all", lambda _: {})


def _no_tpu(_: Arguments) -> None:
    raise ValueError("there is none")


def _open(open_source: Callable[..., sources.Source], arguments: Arguments) -> sources.Source:
    if arguments["dataset"] != sources.IMAGE_FOLDER:
        raise errors.UserError("No data set is downloaded here.")
    return open_source(**arguments)


def _fixed_batches(arguments: Arguments) -> tf.data.Dataset:
    count, side = arguments["batch_size"], arguments["policy"].image_size
    rng = np.random.default_rng(0)
    batch = {"label": np.arange(count, dtype=np.int32) % 3}
    if arguments["augment_on"] == "device":
        batch["image"] = rng.integers(0, 256, (count, side, side, 3), np.uint8)
        batch["seed"] = np.zeros([count, 2], np.int32)
        batch["index"] = np.arange(count, dtype=np.int32)
    else:
        shape = (count, arguments["num_views"], side, side, 3)
        batch["views"] = rng.uniform(size=shape).astype(np.float32)
    return tf.data.Dataset.from_tensors(batch).repeat()


def _teacher(_: Arguments) -> teachers.Teacher:
    def logits(images: tf.Tensor) -> tf.Tensor:
        return 9 * tf.reduce_mean(images, [1, 2])

    return teachers.Teacher(logits, len(tiny_runs.CLASSES), None)


def _features(arguments: Arguments) -> features.Extracted:
    count = arguments["source"].num_examples(arguments["split"])
    labels = np.arange(count) % 3
    found = np.eye(3)[labels] + 0.1 * np.random.default_rng(0).normal(size=(count, 3))
    return features.Extracted(found, found, labels, np.arange(count), None, content=labels)


def _outputs(arguments: Arguments) -> in_memory.Outputs:
    return in_memory.Outputs(np.zeros([len(arguments["images"]), 3]), None)
