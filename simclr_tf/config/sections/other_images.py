"""Evaluations on other images than those of the two splits."""

from __future__ import annotations

import dataclasses

from simclr_tf import errors, text
from simclr_tf.config.metadata import Section
from simclr_tf.config.sections import bounds
from simclr_tf.data import corruption_names as known

_OTHER_IMAGES = Section("Evaluation on other images")


@dataclasses.dataclass(frozen=True)
class OtherImageSettings:
    """What the evaluations robustness, shifts and ood are measured on."""

    corruptions: str = _OTHER_IMAGES.setting(
        "all",
        "For --evaluations=robustness: the corruptions, as a list such as gaussian_noise,fog: "
        f"{', '.join(known.NAMES)}. all: the first {len(known.COMMON)}, which are "
        "those of the benchmark.",
        resume="freely",
    )
    corruption_severities: str = _OTHER_IMAGES.setting(
        ",".join(map(str, known.SEVERITIES)),
        "For --evaluations=robustness: the severities, as a list of numbers from 1 to 5.",
        resume="freely",
    )
    corruption_examples: int = _OTHER_IMAGES.setting(
        1000,
        "For --evaluations=robustness: number of evaluated images that are corrupted, drawn once "
        "for all corruptions; 0: all of them. Of a --corrupted_dataset, the first images.",
        at_least=0,
        reason="0 means all images",
        resume="freely",
        at_most=bounds.MANY,
        limit_reason="no data set is larger",
    )
    corrupted_dataset: str | None = _OTHER_IMAGES.setting(
        None,
        "For --evaluations=robustness: a data set of tensorflow-datasets with corrupted images, "
        "such as cifar10_corrupted or imagenet2012_corrupted, whose configurations are named as in "
        "fog_3. Unset: the images of the evaluation split are corrupted here, which needs the "
        f"package {known.PACKAGE}.",
        resume="freely",
    )
    baseline_run: str | None = _OTHER_IMAGES.setting(
        None,
        "For --evaluations=robustness: the run directory of the network by whose errors the mean "
        "corruption error (mCE) is divided. It was evaluated in the same way.",
        resume="freely",
        is_path=True,
    )
    shift_datasets: str | None = _OTHER_IMAGES.setting(
        None,
        "For --evaluations=shifts: data sets with the same classes, comma-separated: names of "
        "tensorflow-datasets, such as cifar10_1 or imagenet_v2, or folders, whose paths contain "
        "a /. Classes are matched by their names.",
        resume="freely",
    )
    ood_datasets: str | None = _OTHER_IMAGES.setting(
        None,
        "For --evaluations=ood: data sets of which no image is of a class of the training images, "
        "written as --shift_datasets. Their labels are not read.",
        resume="freely",
    )

    @property
    def corruption_names(self) -> tuple[str, ...]:
        """The corruptions, in the order of the paper.

        Raises:
            UserError: if there is no such corruption, or none is named.
        """
        if self.corruptions == "all":
            return known.COMMON
        names = text.listed(self.corruptions)
        for name in names:
            if name not in known.NAMES:
                raise errors.ArgumentError(
                    "corruptions",
                    self.corruptions,
                    f"names {name!r}{text.suggestion(name, known.NAMES)}, which is not one "
                    f"of {', '.join(known.NAMES)}; list some of these, or give all.",
                )
        if not names:
            raise errors.ArgumentError(
                "corruptions", self.corruptions, "names no corruption; list some, or give all."
            )
        return tuple(name for name in known.NAMES if name in names)

    @property
    def severities(self) -> tuple[int, ...]:
        """The severities of corruptions, the smallest first.

        Raises:
            UserError: if they are not numbers from 1 to 5.
        """
        listed = text.listed(self.corruption_severities)
        if not listed or not set(listed) <= set(map(str, known.SEVERITIES)):
            raise errors.ArgumentError(
                "corruption_severities",
                self.corruption_severities,
                "is not a list of numbers from 1 to 5; give for example 1,3,5.",
            )
        return tuple(sorted(set(map(int, listed))))

    @property
    def shift_names(self) -> list[str]:
        """The names in `shift_datasets`."""
        return list(dict.fromkeys(text.listed(self.shift_datasets)))

    @property
    def ood_names(self) -> list[str]:
        """The names in `ood_datasets`."""
        return list(dict.fromkeys(text.listed(self.ood_datasets)))
