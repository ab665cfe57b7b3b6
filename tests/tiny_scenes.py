"""Small data sets of tensorflow-datasets whose images may have several labels."""

from __future__ import annotations

import contextlib
import io
import pathlib
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

CLASSES = ("red", "green", "blue")
COUNTS = {"train": 20, "validation": 10, "test": 16}
SIDE = 8


def labels_of(split: str) -> np.ndarray:
    """Returns the labels (n, 3) of a split of `Scenes`: 1, 0, and -1 if difficult."""
    rng = np.random.default_rng(len(split))
    return rng.choice([1, 0, -1], (COUNTS[split], 3), p=[0.4, 0.5, 0.1])


class Scenes(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Noise that is brighter in the channels of its labels; stored as PASCAL VOC is."""

    VERSION = tfds.core.Version("1.0.0")
    MARKS_DIFFICULT = True
    SPLITS = tuple(COUNTS)
    CLASSES = CLASSES
    KEY = "labels"

    def labels(self, split: str) -> np.ndarray:
        """Returns the labels that are stored for a split."""
        return labels_of(split)

    def entry(self) -> Any:
        """Returns the feature of an entry of the list of labels."""
        return tfds.features.ClassLabel(names=self.CLASSES)

    def entries(self, shown: np.ndarray) -> list[Any]:
        """Returns the list of labels of an image that shows these classes."""
        return list(shown)

    def _info(self) -> Any:
        classes = tfds.features.Sequence(self.entry())
        features = {"image": tfds.features.Image(shape=(SIDE, SIDE, 3)), self.KEY: classes}
        if self.MARKS_DIFFICULT:
            features["labels_no_difficult"] = classes
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {split: self._generate_examples(split) for split in self.SPLITS}

    def _generate_examples(self, split: str) -> Any:
        rng = np.random.default_rng(1)
        for index, (seen, stored) in enumerate(zip(labels_of(split), self.labels(split))):
            image = rng.integers(0, 120, (SIDE, SIDE, 3)) + 60 * np.abs(seen)
            example = {
                "image": image.astype(np.uint8),
                self.KEY: self.entries(np.flatnonzero(stored)),
                "labels_no_difficult": np.flatnonzero(stored == 1),
            }
            yield index, {key: example[key] for key in self.info.features}


def prepare(builder: type[Scenes], folder: pathlib.Path) -> str:
    """Writes a data set, and returns its name."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        made = builder(data_dir=str(folder))
        made.download_and_prepare()
    return str(made.name)
