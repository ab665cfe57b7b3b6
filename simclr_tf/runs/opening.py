"""A run with its data opened and its directory checked: what training and evaluation share."""

from __future__ import annotations

import dataclasses

import psutil
import tensorflow as tf

from simclr_tf import config as config_lib
from simclr_tf import console, errors, text
from simclr_tf.data import balanced, sources, streams
from simclr_tf.models import simclr
from simclr_tf.runs import builders, compatibility, directory, teachers, unreadable
from simclr_tf.runs import weights as weights_lib

# The rest of the memory is for the network, shuffling and everyone else.
_CACHE_SHARE = 0.8


@dataclasses.dataclass(frozen=True)
class Run:
    """A run with its data opened and its splits known.

    Attributes:
        config: the settings, with `eval_split` resolved.
        source: the data set.
        strategy: over the replicas.
        architecture: of the network.
        weights: of --checkpoint; None without one, and if the run resumes from its own.
        teacher: that it learns from, or None.
        by_class: the training images, if batches are balanced by class.
    """

    config: config_lib.Config
    source: sources.Source
    strategy: tf.distribute.Strategy
    architecture: simclr.Architecture
    weights: weights_lib.Weights | None = None
    teacher: teachers.Teacher | None = None
    by_class: balanced.ByClass | None = None

    @property
    def model_dir(self) -> str:
        """The run directory."""
        assert self.config.model_dir is not None
        return self.config.model_dir

    @property
    def num_views(self) -> int:
        """Views per image: two to contrast, one to learn a label from."""
        return 2 if self.config.contrastive else 1

    def new_model(self) -> simclr.SimCLR:
        """Returns the network at its initial weights, a function of the seed."""
        with self.strategy.scope():
            return simclr.SimCLR(
                self.architecture,
                seed=self.config.seed,
                mixed_precision=self.config.mixed_precision,
                global_bn=self.config.global_bn,
                recompute=self.config.recompute,
            )


def open_run(
    config: config_lib.Config,
    strategy: tf.distribute.Strategy,
    weights: weights_lib.Weights | None = None,
    *,
    eval_split_given: bool,
) -> Run:
    """Opens the data and the run directory, and refuses what cannot work before any work.

    Args:
        config: the settings.
        strategy: over the replicas.
        weights: of --checkpoint; None without one, and if the run resumes from its own.
        eval_split_given: whether the person named the evaluation split. If not, and the data
            has no such split, a usual one that it has is taken.

    Raises:
        UserError: for whatever is wrong with settings, data or directory.
    """
    config_lib.validate(config)
    model_dir = config.model_dir
    if model_dir is None:
        raise errors.UserError("--model_dir is missing; name a folder for this run's files.")
    builders.check_encoder(config)
    replicas = strategy.num_replicas_in_sync
    if config.train_batch_size % replicas:
        raise errors.UserError(
            f"--train_batch_size={config.train_batch_size} does not divide by the {replicas} "
            f"replicas; use {_nearest_multiple(config.train_batch_size, replicas)}."
        )
    per_replica = config.train_batch_size // replicas
    if per_replica % config.accum_chunks:
        raise errors.UserError(
            f"--accum_chunks={config.accum_chunks} does not divide the {per_replica} images of a "
            f"replica's batch; use {text.nearest_divisor(per_replica, config.accum_chunks)}."
        )
    if config.jit_compile and replicas > 1 and not config.use_tpu:
        raise errors.UserError(
            f"--jit_compile works on one device, and there are {replicas} replicas; leave it out."
        )
    compatibility.check_resumable(config, model_dir)
    source = sources.open_source(config.dataset, data_dir=config.data_dir, seed=config.seed)
    config = _with_splits(config, source, eval_split_given=eval_split_given)
    if config.mode == "eval" or config.reads_labels:
        _check_labels(config, source)
    if config.cache_dataset:
        needed = streams.cached_bytes(source, config.train_split)
        _check_memory("cache_dataset", config.train_split, needed)
    directory.prepare(model_dir)
    if config.max_bad_images:
        splits = [config.train_split]
        if config.mode != "train" and source.class_names is not None:
            splits.append(config.eval_split)
        source = unreadable.exclude(config, source, splits)
    teacher = None
    if config.teacher is not None and config.mode != "eval":
        with strategy.scope():
            teacher = teachers.load(config.teacher, image_size=config.image_size)
    by_class = _by_class(config, source) if config.mode != "eval" else None
    class_names = _class_names(config, source, teacher)
    architecture = builders.architecture_of(config, class_names)
    architecture = compatibility.reconcile_architecture(config, architecture, weights, model_dir)
    return Run(config, source, strategy, architecture, weights, teacher, by_class)


def _class_names(
    config: config_lib.Config, source: sources.Source, teacher: teachers.Teacher | None
) -> tuple[str, ...] | None:
    """Returns the classes that the linear head tells apart: the data's, or the teacher's."""
    with_head = config.lineareval_while_pretraining or not config.contrastive
    names = source.class_names if with_head and _is_labelled(source, config.train_split) else None
    if teacher is None:
        return names
    if names is None:
        return teacher.class_names or tuple(map(str, range(teacher.num_classes)))
    if teacher.num_classes != len(names) or teacher.class_names not in (None, names):
        raise errors.UserError(
            f"--teacher={config.teacher} tells {teacher.num_classes} classes apart "
            f"({text.shortened(teacher.class_names or ['unnamed'])}), and the data has "
            f"{len(names)} ({text.shortened(names)}); "
            "take a teacher of the same classes, or images without labels."
        )
    return names


def _by_class(config: config_lib.Config, source: sources.Source) -> balanced.ByClass | None:
    """Opens the training images by class, if batches are to be balanced."""
    if not config.samples_per_class:
        return None
    needed = balanced.needed_bytes(source, config.train_split)
    if needed:
        _check_memory("samples_per_class", config.train_split, needed)
    with console.working("listed the images by class"):
        images = balanced.open_by_class(source, config.train_split)
    note = balanced.check(
        images,
        batch_size=config.train_batch_size,
        samples_per_class=config.samples_per_class,
    )
    if note:
        console.say(note)
    return images


def _check_memory(flag: str, split: str, needed: int) -> None:
    """Tells what keeping the images takes, and refuses what does not fit."""
    free = psutil.virtual_memory().available
    told = f"the images of {split!r} take about {needed / 2**30:.2f} GiB"
    if needed > _CACHE_SHARE * free:
        raise errors.UserError(
            f"--{flag} does not fit: {told}, and {free / 2**30:.2f} GiB of memory are free, "
            f"of which they may take {_CACHE_SHARE:.0%}; leave it out."
        )
    console.say(f"Kept in memory: {told} of {free / 2**30:.2f} GiB free.")


def _is_labelled(source: sources.Source, split: str) -> bool:
    """Tells whether a split has labels, which a labelled data set's may lack (as STL-10's)."""
    if source.class_names is None:
        return False
    return all(int(example["label"]) >= 0 for example in source.examples(split).take(1))


def _nearest_multiple(value: int, of: int) -> str:
    low = value // of * of
    return f"{low} or {low + of}" if low >= 2 else str(low + of)


def _with_splits(
    config: config_lib.Config, source: sources.Source, *, eval_split_given: bool
) -> config_lib.Config:
    """Returns the settings with the evaluation split resolved, after a look at both splits."""
    if not eval_split_given and config.eval_split == config_lib.Config.eval_split:
        split = _usual_eval_split(source)
        config = dataclasses.replace(config, eval_split=split or config.eval_split)
        if split is None and config.mode != "train" and source.class_names is not None:
            has = ", ".join(f"{name} ({count:,})" for name, count in source.splits.items())
            raise errors.UserError(
                f"The data set {source.name!r} has no split to evaluate on, only {has}; set for "
                "example --train_split=train[:90%] and --eval_split=train[90%:], or --mode=train."
            )
    source.num_examples(config.train_split)  # Refuses a split that does not exist.
    if config.mode != "train" and source.class_names is not None:
        source.num_examples(config.eval_split)
    return config


def _usual_eval_split(source: sources.Source) -> str | None:
    usual = (config_lib.Config.eval_split, "test", "val", "valid")
    return next((split for split in usual if split in source.splits), None)


def _check_labels(config: config_lib.Config, source: sources.Source) -> None:
    missing = lack_of_labels(source, config.train_split)
    if config.mode != "train":
        missing = missing or lack_of_labels(source, config.eval_split)
    if missing is None:
        return
    if config.mode != "eval" and config.contrastive:
        raise errors.UserError(
            f"{missing}, from which --objective={config.objective} learns; use "
            "--objective=nt_xent on it, or name data with one folder per class."
        )
    what = "evaluation" if config.mode == "eval" else "fine-tuning"
    raise errors.UserError(
        f"{missing}, so {what} has nothing to compare with; use "
        "--mode=pretrain on it, or name data with one folder per class."
    )


def lack_of_labels(source: sources.Source, split: str) -> str | None:
    """Says that a split has no labels, as the beginning of a sentence; None if it has."""
    if source.class_names is None:
        return f"The data set {source.name!r} has no labels"
    if not _is_labelled(source, split):
        return f"The split {split!r} of {source.name!r} has no labels"
    return None
