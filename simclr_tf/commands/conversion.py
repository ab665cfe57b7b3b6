"""What another form of an export costs: measured on the images of a run, printed and stored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import dataclasses
import time
from typing import Any

import numpy as np
import tensorflow as tf

from simclr_tf import config as config_lib
from simclr_tf import console, errors, text
from simclr_tf.data import evaluation_images, split_names
from simclr_tf.evaluation import fidelity
from simclr_tf.models import simclr
from simclr_tf.runs import dataset, directory
from simclr_tf.runs import pixels as pixels_lib
from simclr_tf.runs import weights as weights_lib
from simclr_tf.serving import bundle, converted, forms

# Enough to see a difference of a percent, and a few minutes for a large network on a processor.
_IMAGES = 2000
# Images from which int8 learns the ranges of values; more hardly change them.
_SAMPLES = 200
_BATCH = 32
_TIMED = 20  # Runs of one image.
# These are written only if what they cost can be measured.
_ONLY_MEASURED = ("float16", "int8")


@dataclasses.dataclass(frozen=True)
class Images:
    """The images on which an export is measured.

    Attributes:
        data: the data of the run; None if it cannot be opened.
        problem: why not, or why accuracies cannot be measured; None if they can.
        split: the split to measure on.
    """

    data: dataset.Data | None
    problem: str | None
    split: str = ""

    def samples(self, image_size: int) -> Iterator[np.ndarray]:
        """Yields training images (1, s, s, c), the same in every export.

        Raises:
            UserError: if one cannot be read.
        """
        assert self.data is not None
        split = self.data.train_split
        for batch in self._batches(split, _SAMPLES, 1, image_size):
            yield batch["image"]

    def batches(self, image_size: int) -> Iterator[dict[str, np.ndarray]]:
        """Yields batches to measure on, see `evaluation_images.spread`.

        Raises:
            UserError: if an image cannot be read.
        """
        return self._batches(self.split, _IMAGES, _BATCH, image_size)

    def count(self) -> int:
        """Returns how many images there are to measure on."""
        assert self.data is not None
        return min(_IMAGES, self.data.source.num_examples(self.split))

    def _batches(
        self, split: str, images: int, batch_size: int, image_size: int
    ) -> Iterator[dict[str, np.ndarray]]:
        assert self.data is not None
        batches = evaluation_images.spread(
            self.data.source, split, images=images, batch_size=batch_size, image_size=image_size
        )
        try:
            yield from batches.as_numpy_iterator()
        except tf.errors.OpError as error:
            raise errors.UserError(
                f"An image of {split!r} of {self.data.source.name} cannot be read "
                f"({text.reason(error)}); find it with --mode=check_data, and repair or remove it."
            ) from error


def images_of(config: config_lib.Config, weights: weights_lib.Weights, form: forms.Form) -> Images:
    """Opens the data of the run that weights are of, or the data that the settings name.

    Args:
        config: the settings.
        weights: the weights to export.
        form: the form of the export.

    Raises:
        UserError: if the data cannot be opened, and the form may not be written unmeasured.
    """
    try:
        data, split = _open(config, weights)
    except errors.UserError as error:
        if form.dtype in _ONLY_MEASURED:
            raise errors.UserError(
                f"--export_dtype={form.dtype} needs images, to measure what it costs: {error} "
                "(--dataset and --data_dir name other images.)"
            ) from error
        return Images(None, str(error).rstrip("."))
    problem = data.why_unlabelled(split)
    if data.source.several_labels:
        problem = "accuracy is defined for one label per image, and these may have several"
    classes = data.source.class_names
    if weights.class_names is None:
        problem = "the network has no linear head"
    elif problem is None and not simclr.same_classes(weights.class_names, classes):
        problem = f"the classes of {data.source.name} are not those of the linear head"
    return Images(data, problem, split)


def _open(config: config_lib.Config, weights: weights_lib.Weights) -> tuple[dataset.Data, str]:
    """Returns the opened data, and the split to measure on: that of training without another."""
    given = {
        name: getattr(config, name)
        for name in dataset.SETTINGS
        if getattr(config, name) != getattr(config_lib.Config, name)
    }
    stored = None if weights.from_reference else directory.read_config(weights.folder)
    changes: dict[str, Any] = given
    if "dataset" in given:  # The stored folder is that of another data set.
        changes = {**given, "data_dir": config.data_dir}
    # Training needs no split to evaluate on.
    config = dataclasses.replace(
        stored or config, **changes, mode="train", model_dir=weights.folder, cache_dataset=False
    )
    data = dataset.open_data(config, eval_split_given="eval_split" in given, several_labels=True)
    pixels = pixels_lib.of_weights(weights)
    pixels_lib.check_suits(config, data.source, data.train_split, pixels, weights.origin)
    data = pixels_lib.applied(data, pixels)
    if config.max_bad_images:
        as_evaluated = dataclasses.replace(config, mode="eval")
        data = dataset.exclude_unreadable(as_evaluated, data)
    unknown = split_names.unknown(data.eval_split, data.source.splits)
    return data, data.train_split if unknown else data.eval_split


@dataclasses.dataclass(frozen=True)
class Examination:
    """Measures an export next to the network in float32, and prints what it costs.

    Attributes:
        network: the network in float32.
        images: the images to measure on.
        form: the form of the export.
        num_bytes: of the weights of the network in float32.
        image_size: side of the images.
    """

    network: converted.Run
    images: Images
    form: forms.Form
    num_bytes: int
    image_size: int

    def __call__(self, run: converted.Run, path: str) -> Mapping[str, Any]:
        """Returns what was measured, for model.json; see `fidelity.compare`.

        Args:
            run: the export.
            path: the file or folder that it is in.

        Raises:
            UserError: if an image cannot be read.
        """
        if self.images.data is None:
            console.warn(
                f"What the {self.form.name} changes was not measured ({self.images.problem}); its "
                "outputs for two images agree with those of the network."
            )
            return {"not_measured": self.images.problem}
        found = {**self._compared(run), **self._timed(run)}
        found |= {"bytes": _size(path), "bytes_float32": self.num_bytes}
        if self.form.dtype == "int8":
            of_training = self.images.data.source.num_examples(self.images.data.train_split)
            found["calibration_images"] = min(_SAMPLES, of_training)
        self._show(found)
        return found

    def _compared(self, run: converted.Run) -> dict[str, Any]:
        data, split, total = self.images.data, self.images.split, self.images.count()
        assert data is not None
        before: list[Mapping[str, np.ndarray]] = []
        after: list[Mapping[str, np.ndarray]] = []
        rest: list[Mapping[str, np.ndarray]] = []
        with console.Progress(f"measuring on {split}", total) as progress:
            for batch in self.images.batches(self.image_size):
                images = batch.pop("image")
                before.append(self.network(images))
                after.append(run(images))
                rest.append(batch)
                progress.update(sum(len(one["label"]) for one in rest))
        others = _joined(rest)
        names = data.source.example_groups(split)
        found = fidelity.compare(
            _joined(before),
            _joined(after),
            None if self.images.problem else others["label"],
            groups=None if names is None else np.array(names)[others["position"]],
        )
        where = {"images": len(others["label"]), "dataset": data.source.name, "split": split}
        why = {"no_accuracy": self.images.problem} if self.images.problem else {}
        return {**where, **why, **found}

    def _timed(self, run: converted.Run) -> dict[str, float]:
        """Returns milliseconds per image, one at a time, the median of some runs."""
        image = next(self.images.batches(self.image_size))["image"][:1]
        return {
            "ms_per_image": _milliseconds(run, image),
            "ms_per_image_float32": _milliseconds(self.network, image),
        }

    def _show(self, found: Mapping[str, Any]) -> None:
        title = (
            f"{self.form.name} in {self.form.dtype}, on {text.count(found['images'], 'image')} of "
            f"{found['split']}"
        )
        console.table(title, ["", "network in float32", "export"], bundle.conversion_rows(found))
        if self.images.problem:
            console.say(f"No accuracies: {self.images.problem}.")


def _joined(parts: list[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _milliseconds(run: converted.Run, image: np.ndarray) -> float:
    run(image)  # The first run of a shape prepares others.
    seconds = []
    for _ in range(_TIMED):
        start = time.monotonic()
        run(image)
        seconds.append(time.monotonic() - start)
    return round(1000 * float(np.median(seconds)), 3)


def _size(path: str) -> int:
    """Returns the bytes of a file, or of all files in a folder."""
    if not tf.io.gfile.isdir(path):
        return tf.io.gfile.stat(path).length
    return sum(
        tf.io.gfile.stat(f"{folder}/{name}").length
        for folder, _, names in tf.io.gfile.walk(path)
        for name in names
    )
