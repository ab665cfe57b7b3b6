"""The data of a run: the data set opened, its splits resolved, its labels checked."""

from __future__ import annotations

import dataclasses
from typing import Any

from simclr_tf import config as config_lib
from simclr_tf import console, errors, host_memory, text
from simclr_tf.data import array_records, depth, in_memory, labels, sources, split_names
from simclr_tf.data import few_labels as few_labels_data
from simclr_tf.runs import directory, few_labels, label_checks, unreadable
from simclr_tf.runs import several_labels as several_labels_lib
from simclr_tf.runs import weights as weights_lib

# Settings that name the data of a run.
SETTINGS = (
    *("dataset", "data_dir", "labels", "group", "image_key", "label_key", "channel_files"),
    *("channel_names", "train_split", "eval_split"),
)
# Fraction of the free memory that images may take. The network and shuffling need the rest.
_CACHE_FRACTION = 0.8


@dataclasses.dataclass(frozen=True)
class Data:
    """An opened data set with the splits that a run uses.

    Attributes:
        source: the data set.
        train_split: split to train on, which exists.
        eval_split: split to evaluate on, which exists if the run evaluates on labels.
        draws: the images of the training split whose labels are used, once for each draw; the
            source has those of the first one. Empty if all labels are used.
    """

    source: sources.Source
    train_split: str
    eval_split: str
    draws: tuple[few_labels_data.Draw, ...] = ()

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Classes of the training images; None if they have no labels."""
        return self.source.class_names if self.is_labelled(self.train_split) else None

    def is_labelled(self, split: str) -> bool:
        """Whether a split has labels, see `labels.is_labelled`."""
        if self.draws and split == self.train_split:
            return True  # The label of the first record of a stream may be hidden.
        return labels.is_labelled(self.source, split)

    def why_unlabelled(self, split: str) -> str | None:
        """Returns the beginning of a sentence that says why a split has no labels, or None."""
        if self.source.class_names is None:
            return f"The data set {self.source.name!r} has no labels"
        if not self.is_labelled(split):
            return f"The split {split!r} of {self.source.name!r} has no labels"
        return None


def open_data(
    config: config_lib.Config, *, eval_split_given: bool, several_labels: bool = False
) -> Data:
    """Opens the data set of a run, and checks that it has the splits and labels that it needs.

    Args:
        config: the settings.
        eval_split_given: whether the evaluation split was given explicitly. It must then exist,
            even if the run does not evaluate. If not, and the data set has no such split, a usual
            one that it has is used.
        several_labels: see `sources.open_source`.

    Raises:
        UserError: if the data set cannot be opened, or lacks a split or labels.
    """
    source = open_source(config, several_labels=several_labels)
    if config.data_service and isinstance(source.reader, array_records.ArrayRecords):
        raise errors.UserError(
            f"The data set {config.dataset!r} is stored in the format ArrayRecord, which the "
            "workers of a tf.data service cannot read; leave out --data_service, or prepare it as "
            "tfrecord in another data directory."
        )
    if source.several_labels:
        several_labels_lib.check(config, source)
    _check_split(config, source, "train_split", config.train_split)
    train_split = split_names.resolve(config.train_split, source.splits)
    eval_split = split_names.resolve(config.eval_split, source.splits)
    if not eval_split_given and config.eval_split == config_lib.Config.eval_split:
        eval_split = _usual_eval_split(config, source, train_split) or eval_split
    data = Data(source, train_split, eval_split)
    given = eval_split_given and not _is_stored_default(config, source)
    if given or len(_used_splits(config, data)) > 1:
        _check_split(config, source, "eval_split", eval_split)
    data = label_checks.check(config, few_labels.restrict(config, data))
    if config.cache_dataset:
        needed = in_memory.num_bytes(source, train_split)
        check_memory("cache_dataset", train_split, needed)
    return data


def _is_stored_default(config: config_lib.Config, source: sources.Source) -> bool:
    """Returns whether the evaluation split is the default in the flagfile of a run without one.

    A run whose data has no split to evaluate on stores the default, which need not exist.
    """
    is_default = config.eval_split == config_lib.Config.eval_split
    return is_default and not split_names.for_evaluation(source.splits)


def open_source(config: config_lib.Config, *, several_labels: bool = False) -> sources.Source:
    """Opens the data set that the settings name.

    Args:
        config: the settings.
        several_labels: see `sources.open_source`.

    Raises:
        UserError: if it cannot be opened.
    """
    return sources.open_source(
        config.dataset,
        data_dir=config.data_dir,
        seed=config.seed,
        labels=config.labels,
        image_key=config.image_key,
        label_key=config.label_key,
        group=config.group,
        **channel_settings(config),
        several_labels=several_labels,
    )


def channel_settings(config: config_lib.Config) -> dict[str, Any]:
    """Returns the arguments of `sources.open_source` for channels that are files of their own."""
    if config.channel_files is None:
        return {}
    names = config.channel_names
    return {
        "channel_files": config.channel_files,
        "channel_names": None if names is None else tuple(text.listed(names)),
    }


def exclude_unreadable(config: config_lib.Config, data: Data) -> Data:
    """Returns the data without the unreadable images of its splits, see `unreadable.exclude`."""
    splits = _used_splits(config, data)
    source = unreadable.exclude(config, data.source, splits, with_pillow=has_pillow(config))
    return dataclasses.replace(data, source=source)


def has_pillow(config: config_lib.Config) -> bool:
    """Returns whether Pillow can decode training images: if this process makes the input."""
    return makes_input(config)


def makes_input(config: config_lib.Config) -> bool:
    """Returns whether this process makes the training batches, and no other machine."""
    remote_tpu = config.use_tpu and (config.tpu_name or config.master)
    return config.data_service is None and not remote_tpu


def warn_of_dark_images(data: Data) -> None:
    """Warns if the first training images have 16 bits and use only low values."""
    sixteen_bit = depth.sampled_range(data.source, data.train_split)
    warning = sixteen_bit and sixteen_bit.warning()
    if warning:
        console.warn(warning)


def _used_splits(config: config_lib.Config, data: Data) -> list[str]:
    """Returns the splits whose images the run reads."""
    evaluates = config.mode != "train" and data.is_labelled(data.train_split)
    return [data.train_split, *([data.eval_split] if evaluates else [])]


def _check_split(config: config_lib.Config, source: sources.Source, flag: str, split: str) -> None:
    """Refuses a split that the data set does not have, or with nothing in it.

    Raises:
        UserError: with the splits that it has.
    """
    for name in split_names.unknown(split, source.splits):
        other = ""
        if source.class_names is not None and config.dataset == sources.IMAGE_FOLDER:
            other = ", or read all images without labels (--labels=none)"
        raise errors.UserError(
            f"The data set {source.name!r} has no split {name!r}"
            f"{text.suggestion(name, source.splits)}; set --{flag} to what it has, "
            f"{split_names.listed(source.splits)}{other}."
        )
    source.num_examples(split)  # Raises if it selects nothing.


def _usual_eval_split(
    config: config_lib.Config, source: sources.Source, train_split: str
) -> str | None:
    """Returns the first usual evaluation split that the data set has, one with labels if possible.

    Raises:
        UserError: if it has none, and the run is to evaluate on labels.
    """
    usual = split_names.for_evaluation(source.splits)
    if source.class_names is None:
        return next(iter(usual), None)
    labelled = next((split for split in usual if label_checks.may_have_labels(source, split)), None)
    if labelled is None and config.mode != "train" and labels.is_labelled(source, train_split):
        raise _nothing_to_evaluate_on(config, source, train_split, unlabelled=usual)
    return labelled or next(iter(usual), None)


def _nothing_to_evaluate_on(
    config: config_lib.Config, source: sources.Source, train_split: str, *, unlabelled: list[str]
) -> errors.UserError:
    """Returns the error of an evaluation without a usual split that has labels."""
    problem = f"The data set {source.name!r} has no split to evaluate on"
    problem += (
        f"{' that has labels' if unlabelled else ''}, only {split_names.listed(source.splits)}"
    )
    without = label_checks.without_evaluation(config)
    if labels.have_one_image_each(source, train_split):
        return errors.UserError(
            f"{problem}, and each class of {train_split!r} has only one image; use {without}, or "
            "--labels=none if they are not classes."
        )
    train = train_split.split("[")[0].split("+")[0].strip()
    return errors.UserError(
        f"{problem}; set for example --train_split={train}[:90%] and --eval_split={train}[90%:], "
        f"or {without}."
    )


def check_memory(flag: str, split: str, needed: int) -> None:
    """Reports how much memory the images of a split take, and refuses what does not fit.

    Args:
        flag: name of the setting that keeps the images in memory.
        split: the split.
        needed: bytes.

    Raises:
        UserError: if they do not fit.
    """
    free = host_memory.free()
    size = f"the images of {split!r} take about {text.gib(needed)}"
    if needed > _CACHE_FRACTION * free:
        raise errors.UserError(
            f"--{flag} does not fit: {size}, and {text.gib(free)} of memory are free, of "
            f"which they may take {_CACHE_FRACTION:.0%}; leave it out."
        )
    console.say(f"Kept in memory: {size} of {text.gib(free)} free.")


def stored_settings(weights: weights_lib.Weights) -> dict[str, Any]:
    """Returns the settings of the data that weights were trained on, as far as they are stored.

    The seed is one of them: it draws the images that are held out of a folder without splits. The
    data folder of google-research/simclr is left out: it was one of another machine.
    """
    if weights.from_reference:
        stored = {name: weights.flags.get(name) for name in SETTINGS if name != "data_dir"}
        return {name: value for name, value in stored.items() if isinstance(value, str)}
    config = directory.read_config(weights.folder)
    if config is None:
        return {}
    stored = {name: getattr(config, name) for name in (*SETTINGS, "seed")}
    return {name: value for name, value in stored.items() if value is not None}
