"""Opens a run: machine, data, weights and architecture are checked against each other."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from simclr_tf import config as config_lib
from simclr_tf import errors, pixel_format, text
from simclr_tf.data import shown
from simclr_tf.models import simclr
from simclr_tf.runs import (
    arithmetic,
    batch_size,
    builders,
    channel_order,
    compatibility,
    dataset,
    directory,
    group_checks,
    teachers,
    validation_images,
)
from simclr_tf.runs import pixels as pixels_lib
from simclr_tf.runs import weights as weights_lib


@dataclasses.dataclass(frozen=True)
class Run:
    """A run with its data opened and its architecture known.

    Attributes:
        config: the settings.
        data: the data set and its splits.
        strategy: the strategy that runs on the replicas.
        architecture: the architecture of the network.
        weights: the weights of --checkpoint; None without one, and if the run resumes from its own.
        batch_was_fitted: whether the batch size was chosen to suit the data and the machine.
        needs_scale: whether the scale of the images is yet to be measured, see
            `scale.with_scale`.
    """

    config: config_lib.Config
    data: dataset.Data
    strategy: tf.distribute.Strategy
    architecture: simclr.Architecture
    weights: weights_lib.Weights | None = None
    batch_was_fitted: bool = False
    needs_scale: bool = False

    @property
    def model_dir(self) -> str:
        """The run directory."""
        assert self.config.model_dir is not None
        return self.config.model_dir

    @property
    def num_views(self) -> int:
        """Views per image, see `Config.resolved_num_views`."""
        return self.config.resolved_num_views

    @property
    def arithmetic(self) -> arithmetic.Arithmetic:
        """In what the layers compute, see `arithmetic.choose`."""
        return arithmetic.choose(self.config.mixed_precision, self.strategy)

    def new_model(self) -> simclr.SimCLR:
        """Returns the network with its initial weights, a function of the seed."""
        with self.strategy.scope():
            return simclr.SimCLR(
                self.architecture,
                seed=self.config.seed,
                mixed_precision=self.arithmetic.mixed_precision,
                global_bn=self.config.global_bn,
                recompute=self.config.recompute,
            )


def check_machine(config: config_lib.Config, replicas: int) -> None:
    """Refuses settings that do not suit the number of replicas.

    Args:
        config: the settings.
        replicas: number of replicas that train together.

    Raises:
        UserError: if the batch or its chunks cannot be divided, or XLA does not support it.
    """
    batch = config.train_batch_size
    if batch % replicas:
        raise errors.UserError(
            f"--train_batch_size={batch} does not divide by the {replicas} replicas; use "
            f"{_nearest_multiples(batch, replicas)}."
        )
    per_replica = batch // replicas
    if per_replica % config.accum_chunks:
        raise errors.UserError(
            f"--accum_chunks={config.accum_chunks} does not divide the {per_replica} images of a "
            f"replica's batch; use {text.nearest_divisor(per_replica, config.accum_chunks)}."
        )
    if config.jit_compile and replicas > 1 and not config.use_tpu:
        raise errors.UserError(
            f"--jit_compile works on one device, and there are {replicas} replicas; leave it out."
        )


def open_run(
    config: config_lib.Config,
    strategy: tf.distribute.Strategy,
    weights: weights_lib.Weights | None,
    *,
    teacher: teachers.Teacher | None = None,
    eval_split_given: bool,
    batch_size_given: bool = True,
) -> Run:
    """Opens what training and evaluation both need, and refuses what cannot work.

    Nothing is written; `prepare_directory` does that, and checks the images.

    Args:
        config: the settings.
        strategy: the strategy that runs on the replicas.
        weights: the weights of --checkpoint; None without one.
        teacher: the network that the run learns from; None without one.
        eval_split_given: see `dataset.open_data`.
        batch_size_given: whether the batch size was given explicitly. If not, training chooses one
            that suits the data and the machine, see `batch_size.fit`.

    Raises:
        UserError: for whatever is wrong with settings, data, weights or the run directory.
    """
    if config.model_dir is None:
        raise errors.UserError("--model_dir is missing; name a folder for this run's files.")
    builders.check_encoder(config)
    fits_batch = config.mode != "eval" and not batch_size_given
    # A batch size that is yet to be chosen is compared with the stored one later, by training.
    ignored = ("train_batch_size",) if fits_batch else ()
    compatibility.check_resumable(config, config.model_dir, ignored=ignored)
    data = dataset.open_data(config, eval_split_given=eval_split_given, several_labels=True)
    group_checks.check(config, data)
    given, replicas = config, strategy.num_replicas_in_sync
    if fits_batch:
        count = data.source.num_examples(data.train_split)
        count -= validation_images.count(config, count)
        config = batch_size.fit(config, count, replicas)
    if config.mode != "eval":
        check_machine(config, replicas)
    pixels, needs_scale = pixels_lib.settle(config, data, weights)
    if teacher is not None:
        channel_order.check(config, data.source, teacher.pixels, f"--teacher={config.teacher}")
        pixels, needs_scale = _with_teacher(config, teacher, pixels, needs_scale=needs_scale)
    builders.policy_of(config, pixels)  # Raises for operations that do not suit the channels.
    shown.choose(pixels, config.show_channels)  # Raises for channels that there are not.
    architecture = fit_architecture(
        config,
        _head_classes(config, data, teacher),
        weights,
        pixels,
        several_labels=data.source.several_labels,
    )
    return Run(
        config,
        pixels_lib.applied(data, pixels),
        strategy,
        architecture,
        weights,
        batch_was_fitted=config is not given,
        needs_scale=needs_scale,
    )


def _with_teacher(
    config: config_lib.Config,
    teacher: teachers.Teacher,
    pixels: pixel_format.PixelFormat,
    *,
    needs_scale: bool,
) -> tuple[pixel_format.PixelFormat, bool]:
    """Returns the pixels of the images, with the scale of the teacher, and whether that is missing.

    Raises:
        UserError: if the teacher sees other images.
    """
    theirs = teacher.pixels
    if not theirs.same_pixels(pixels):
        raise errors.UserError(
            f"--teacher={config.teacher} takes images of {theirs.described()}, and these have "
            f"{pixels.described()}; use a teacher of such images, or --channels=rgb for one of "
            "pictures."
        )
    if needs_scale and pixels_lib.keeps_scale(config, theirs):
        return theirs.with_names(pixels.names), False
    return pixels, needs_scale


def prepare_directory(run: Run) -> Run:
    """Makes the run directory, and excludes unreadable images if the run allows some.

    Returns:
        The run, without those images.

    Raises:
        UserError: if the directory cannot be written to, or more images are unreadable than
            allowed.
    """
    directory.ensure_writable(run.model_dir)
    return exclude_unreadable(run)


def exclude_unreadable(run: Run) -> Run:
    """Excludes unreadable images, if the run allows some; its directory exists.

    Returns:
        The run, without those images.

    Raises:
        UserError: if more images are unreadable than allowed.
    """
    if not run.config.max_bad_images:
        return run
    return dataclasses.replace(run, data=dataset.exclude_unreadable(run.config, run.data))


def fit_architecture(
    config: config_lib.Config,
    class_names: tuple[str, ...] | None,
    weights: weights_lib.Weights | None,
    pixels: pixel_format.PixelFormat = pixel_format.RGB,
    *,
    several_labels: bool = False,
) -> simclr.Architecture:
    """Returns the architecture of a run, which fits the weights that it reads.

    Args:
        config: the settings.
        class_names: the classes of the linear head; None for no linear head.
        weights: the weights of --checkpoint; None without one.
        pixels: the pixels of the images.
        several_labels: whether an image may have several of these classes.

    Raises:
        UserError: if the weights in the run directory have another architecture.
    """
    assert config.model_dir is not None
    architecture = builders.architecture_of(config, class_names, pixels)
    if class_names is not None:
        architecture = dataclasses.replace(architecture, several_labels=several_labels)
    return compatibility.reconcile_architecture(config, architecture, weights, config.model_dir)


def _head_classes(
    config: config_lib.Config, data: dataset.Data, teacher: teachers.Teacher | None
) -> tuple[str, ...] | None:
    """Returns the classes of the linear head: those of the data, or else of the teacher.

    Raises:
        UserError: if the data and the teacher have different classes.
    """
    if config.contrastive and not config.lineareval_while_pretraining:
        return None
    names = data.class_names
    if teacher is None:
        return names
    if names is None:
        return teacher.class_names or tuple(map(str, range(teacher.num_classes)))
    if teacher.num_classes != len(names) or teacher.class_names not in (None, names):
        raise errors.UserError(
            f"--teacher={config.teacher} has {teacher.num_classes} classes "
            f"({text.shortened(teacher.class_names or ['unnamed'])}), and the data has "
            f"{len(names)} ({text.shortened(names)}); use a teacher of the same classes, or images "
            "without labels."
        )
    return names


def _nearest_multiples(value: int, of: int) -> str:
    low = value // of * of
    return f"{low} or {low + of}" if low >= 2 else str(low + of)
