"""The images of the training split on which a run is evaluated during training."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np

from simclr_tf import config as config_lib
from simclr_tf import console, errors, text
from simclr_tf.data import sources, subsets
from simclr_tf.runs import dataset, length

# The most other training images in which nearest neighbours are searched.
_MOST_NEIGHBOURS = 20_000
# What the images of the training split are used for.
_TRAINED, _NEIGHBOUR, _VALIDATION = 0, 1, 2


@dataclasses.dataclass(frozen=True)
class Drawn:
    """The training split, divided.

    Attributes:
        split: the training split.
        names: (n,) names of its images, in their stored order.
        uses: (n,) what each image is used for. Neighbours are trained on, too.
        is_labelled: whether images have labels.
    """

    split: str
    names: np.ndarray
    uses: np.ndarray
    is_labelled: bool

    @property
    def count(self) -> int:
        """Number of validation images."""
        return int(np.sum(self.uses == _VALIDATION))

    @property
    def fingerprint(self) -> str:
        """Hash of the names of the validation images."""
        names = "\n".join(self.names[self.uses == _VALIDATION])
        return hashlib.blake2b(names.encode(), digest_size=8).hexdigest()

    def is_validation(self) -> np.ndarray:
        """Returns (m,) bool for the m images of `to_evaluate`, in their stored order."""
        return self.uses[self.uses != _TRAINED] == _VALIDATION

    def to_train(self, source: sources.Source) -> sources.Source:
        """Returns a data set without the validation images."""
        return self._without(source, self.uses == _VALIDATION)

    def to_evaluate(self, source: sources.Source) -> sources.Source:
        """Returns a data set of the validation images and of those to search for neighbours."""
        return self._without(source, self.uses == _TRAINED)

    def validation_only(self, source: sources.Source) -> sources.Source:
        """Returns a data set of the validation images."""
        return self._without(source, self.uses != _VALIDATION)

    def _without(self, source: sources.Source, left_out: np.ndarray) -> sources.Source:
        return subsets.excluding(source, self.split, self.names[left_out])


def count(config: config_lib.Config, num_examples: int) -> int:
    """Returns how many training images are left out of training; 0 without --eval_epochs.

    Args:
        config: the settings.
        num_examples: images in the training split.

    Raises:
        UserError: if too few images would be left to train on.
    """
    chosen = length.validation_images(config, num_examples)
    if 2 * chosen > num_examples:
        given = f"--validation_examples={config.validation_examples}"
        raise errors.UserError(
            f"{given if config.validation_examples else f'--eval_epochs={config.eval_epochs}'} "
            f"leaves {chosen:,} of the {num_examples:,} images of {config.train_split!r} out of "
            "training, more than half; leave out fewer, or set --eval_epochs=0."
        )
    return chosen


def draw(config: config_lib.Config, data: dataset.Data) -> Drawn:
    """Draws the validation images: a function of the seed and of the images.

    Args:
        config: the settings, with --eval_epochs.
        data: the data set, without unreadable images.

    Raises:
        UserError: see `count`.
    """
    split = data.train_split
    with console.working(f"Drawing the validation images from {split}"):
        names, labels = subsets.read_names_and_labels(data.source, split)
    order = subsets.stratified_order(names, labels, seed=config.seed)
    validation = count(config, len(names))
    uses = np.full(len(names), _TRAINED)
    is_labelled = data.class_names is not None
    if is_labelled:
        uses[order[validation : validation + _MOST_NEIGHBOURS]] = _NEIGHBOUR
        present = len({label for label in labels if label >= 0}) if labels.ndim == 1 else 0
        if validation < present:
            console.warn(
                f"{text.count(validation, 'validation image')} cannot have all of the {present} "
                f"classes; set --validation_examples to {10 * present} or more."
            )
    uses[order[:validation]] = _VALIDATION
    return Drawn(split, np.array(names, object), uses, is_labelled)
