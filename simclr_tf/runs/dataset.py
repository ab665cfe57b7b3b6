"""The data of a run: the data set opened, its splits resolved, its labels checked."""

from __future__ import annotations

import dataclasses

import psutil

from simclr_tf import config as config_lib
from simclr_tf import console, errors, text
from simclr_tf.data import labels, sources, streams
from simclr_tf.runs import directory, unreadable
from simclr_tf.runs import weights as weights_lib

# Settings that name the data of a run.
_SETTINGS = ("dataset", "data_dir", "train_split", "eval_split")
# Names of evaluation splits, the preferred one first.
_EVAL_SPLITS = (config_lib.Config.eval_split, "test", "val", "valid")
# Fraction of the free memory that images may take. The network and shuffling need the rest.
_CACHE_FRACTION = 0.8


@dataclasses.dataclass(frozen=True)
class Data:
    """An opened data set with the splits that a run uses.

    Attributes:
        source: the data set.
        train_split: split to train on, which exists.
        eval_split: split to evaluate on, which exists if the run evaluates on labels.
    """

    source: sources.Source
    train_split: str
    eval_split: str

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Classes of the training images; None if they have no labels."""
        return self.source.class_names if self.is_labelled(self.train_split) else None

    def is_labelled(self, split: str) -> bool:
        """Whether a split has labels, see `labels.is_labelled`."""
        return labels.is_labelled(self.source, split)

    def why_unlabelled(self, split: str) -> str | None:
        """Returns the beginning of a sentence that says why a split has no labels, or None."""
        if self.source.class_names is None:
            return f"The data set {self.source.name!r} has no labels"
        if not self.is_labelled(split):
            return f"The split {split!r} of {self.source.name!r} has no labels"
        return None


def open_data(config: config_lib.Config, *, eval_split_given: bool) -> Data:
    """Opens the data set of a run, and checks that it has the splits and labels that it needs.

    Args:
        config: the settings.
        eval_split_given: whether the evaluation split was given explicitly. It must then exist,
            even if the run does not evaluate. If not, and the data set has no such split, a usual
            one that it has is used.

    Raises:
        UserError: if the data set cannot be opened, or lacks a split or labels.
    """
    source = sources.open_source(config.dataset, data_dir=config.data_dir, seed=config.seed)
    eval_split = config.eval_split
    if not eval_split_given and eval_split == config_lib.Config.eval_split:
        eval_split = _usual_eval_split(config, source) or eval_split
    data = Data(source, config.train_split, eval_split)
    checked = _used_splits(config, data)
    if eval_split_given and not _is_stored_default(config, source):
        checked.append(eval_split)
    for split in checked:
        source.num_examples(split)  # Raises if there is no such split.
    if config.mode == "eval" or config.reads_labels:
        _check_labels(config, data)
    if config.cache_dataset:
        needed = streams.cached_bytes(source, config.train_split)
        check_memory("cache_dataset", config.train_split, needed)
    return data


def _is_stored_default(config: config_lib.Config, source: sources.Source) -> bool:
    """Returns whether the evaluation split is the default in the flagfile of a run without one.

    A run whose data has no split to evaluate on stores the default, which need not exist.
    """
    return config.eval_split == config_lib.Config.eval_split and not any(
        split in source.splits for split in _EVAL_SPLITS
    )


def exclude_unreadable(config: config_lib.Config, data: Data) -> Data:
    """Returns the data without the unreadable images of its splits, see `unreadable.exclude`."""
    splits = _used_splits(config, data)
    return dataclasses.replace(data, source=unreadable.exclude(config, data.source, splits))


def _used_splits(config: config_lib.Config, data: Data) -> list[str]:
    """Returns the splits whose images the run reads."""
    evaluates = config.mode != "train" and data.source.class_names is not None
    return [data.train_split, *([data.eval_split] if evaluates else [])]


def _usual_eval_split(config: config_lib.Config, source: sources.Source) -> str | None:
    """Returns the first usual evaluation split that the data set has.

    Raises:
        UserError: if it has none, and the run is to evaluate on labels.
    """
    split = next((split for split in _EVAL_SPLITS if split in source.splits), None)
    if split is None and config.mode != "train" and source.class_names is not None:
        existing = ", ".join(f"{name} ({count:,})" for name, count in source.splits.items())
        raise errors.UserError(
            f"The data set {source.name!r} has no split to evaluate on, only {existing}; set for "
            "example --train_split=train[:90%] and --eval_split=train[90%:], or "
            f"{_without_evaluation(config)}."
        )
    return split


def _check_labels(config: config_lib.Config, data: Data) -> None:
    missing = data.why_unlabelled(data.train_split)
    if missing is None:
        _check_evaluation_labels(config, data)
        return
    if config.mode != "eval" and config.contrastive:
        raise errors.UserError(
            f"{missing}, from which --objective={config.objective} learns; use "
            "--objective=nt_xent on it, or a data set with one folder per class."
        )
    what = "evaluation" if config.mode == "eval" else "fine-tuning"
    raise errors.UserError(
        f"{missing}, which {what} needs; use --mode=pretrain on it, or a data set with one folder "
        "per class."
    )


def _check_evaluation_labels(config: config_lib.Config, data: Data) -> None:
    if config.mode == "train":
        return
    missing = data.why_unlabelled(data.eval_split)
    if missing is not None:
        other = "" if config.mode == "eval" else f", or {_without_evaluation(config)}"
        raise errors.UserError(
            f"{missing}, which evaluation needs; set --eval_split to a split with labels{other}."
        )


def _without_evaluation(config: config_lib.Config) -> str:
    """Returns the flags of the same training without an evaluation at its end."""
    fine_tunes = config.train_mode == "finetune"
    return "--mode=train --train_mode=finetune" if fine_tunes else "--mode=train"


def check_memory(flag: str, split: str, needed: int) -> None:
    """Reports how much memory the images of a split take, and refuses what does not fit.

    Args:
        flag: name of the setting that keeps the images in memory.
        split: the split.
        needed: bytes.

    Raises:
        UserError: if they do not fit.
    """
    free = psutil.virtual_memory().available
    size = f"the images of {split!r} take about {text.gib(needed)}"
    if needed > _CACHE_FRACTION * free:
        raise errors.UserError(
            f"--{flag} does not fit: {size}, and {text.gib(free)} of memory are free, of "
            f"which they may take {_CACHE_FRACTION:.0%}; leave it out."
        )
    console.say(f"Kept in memory: {size} of {text.gib(free)} free.")


def stored_settings(weights: weights_lib.Weights) -> dict[str, str]:
    """Returns the settings of the data that weights were trained on, as far as they are stored.

    The data folder of google-research/simclr is left out: it was one of another machine.
    """
    if weights.from_reference:
        stored = {name: weights.flags.get(name) for name in _SETTINGS if name != "data_dir"}
    else:
        config = directory.read_config(weights.folder)
        stored = {name: getattr(config, name, None) for name in _SETTINGS}
    return {name: value for name, value in stored.items() if isinstance(value, str)}
