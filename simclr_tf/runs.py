"""A run with its data opened and its directory checked: what training and evaluation share."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from simclr_tf import config as config_lib
from simclr_tf import errors, run_directory
from simclr_tf.data import sources
from simclr_tf.models import resnet, simclr
from simclr_tf.report import console
from simclr_tf.training import checkpoints

# Settings that decide which variables a checkpoint of training holds.
_FIXED_BY_START = ("train_mode", "optimizer", "fine_tune_after_block")


@dataclasses.dataclass(frozen=True)
class Run:
    """A run with its data opened and its splits known.

    Attributes:
        config: the settings, with `eval_split` resolved.
        source: the data set.
        strategy: over the replicas.
        architecture: of the network.
    """

    config: config_lib.Config
    source: sources.Source
    strategy: tf.distribute.Strategy
    architecture: simclr.Architecture

    @property
    def model_dir(self) -> str:
        """The run directory."""
        assert self.config.model_dir is not None
        return self.config.model_dir

    @property
    def labelled(self) -> bool:
        """Whether the data has labels."""
        return self.source.class_names is not None

    def new_model(self) -> simclr.SimCLR:
        """Returns the network at its initial weights, a function of the seed."""
        with self.strategy.scope():
            return simclr.SimCLR(
                self.architecture,
                seed=self.config.seed,
                mixed_precision=self.config.mixed_precision,
                global_bn=self.config.global_bn,
            )


def open_run(
    config: config_lib.Config, strategy: tf.distribute.Strategy, *, eval_split_given: bool
) -> Run:
    """Opens the data and the run directory, and refuses what cannot work before any work.

    Args:
        config: the settings.
        strategy: over the replicas.
        eval_split_given: whether the person named the evaluation split. If not, and the data
            has no such split, a usual one that it has is taken.

    Raises:
        UserError: for whatever is wrong with settings, data or directory.
    """
    config.check()
    model_dir = config.model_dir
    if model_dir is None:
        raise errors.UserError("--model_dir is missing; name a folder for this run's files.")
    resnet.check_depth(config.resnet_depth)
    replicas = strategy.num_replicas_in_sync
    if config.train_batch_size % replicas:
        raise errors.UserError(
            f"--train_batch_size={config.train_batch_size} does not divide by the {replicas} "
            f"replicas; use {_nearest_multiple(config.train_batch_size, replicas)}."
        )
    if config.jit_compile and replicas > 1 and not config.use_tpu:
        raise errors.UserError(
            f"--jit_compile works on one device, and there are {replicas} replicas; leave it out."
        )
    _check_started(config, model_dir)
    source = sources.open_source(config.dataset, data_dir=config.data_dir, seed=config.seed)
    config = _with_splits(config, source, eval_split_given=eval_split_given)
    run_directory.prepare(model_dir)
    with_head = config.lineareval_while_pretraining or not config.pretraining
    names = source.class_names if with_head else None
    architecture = simclr.architecture_of(config, names)
    if checkpoints.latest(model_dir):  # Without weights, nothing there needs to fit.
        stored = run_directory.read_architecture(model_dir)
        if stored is not None:
            run_directory.check_same(stored, architecture, model_dir)
    return Run(config, source, strategy, architecture)


def _check_started(config: config_lib.Config, model_dir: str) -> None:
    """Refuses to evaluate nothing, and to go on with another kind of training."""
    if checkpoints.latest(model_dir) is None:
        if config.mode == "eval":
            raise errors.UserError(
                f"--model_dir={model_dir} holds no checkpoint to evaluate; train first, or name "
                "the --model_dir of a training."
            )
        return
    if config.mode != "eval":
        asked = {name: getattr(config, name) for name in _FIXED_BY_START}
        run_directory.check_same_training(model_dir, asked)


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
    if config.mode != "train" or config.train_mode == "finetune":
        _check_labels(config, source)
    source.num_examples(config.train_split)  # Refuses a split that does not exist.
    if config.mode != "train" and source.class_names is not None:
        source.num_examples(config.eval_split)
    return config


def _usual_eval_split(source: sources.Source) -> str | None:
    usual = (config_lib.Config.eval_split, "test", "val", "valid")
    return next((split for split in usual if split in source.splits), None)


def _check_labels(config: config_lib.Config, source: sources.Source) -> None:
    if source.class_names is not None:
        return
    what = "evaluation" if config.mode == "eval" else "fine-tuning"
    if config.mode == "eval" or config.train_mode == "finetune":
        raise errors.UserError(
            f"The data set {source.name!r} has no labels, so {what} has nothing to compare with; "
            "use --mode=train to pretrain on it, or data with one folder per class."
        )


def blame_image(run: Run, error: tf.errors.OpError) -> Exception:
    """Finds the image that does not decode.

    Args:
        run: of which.
        error: what TensorFlow raised, which does not name the image.

    Returns:
        What to raise: a UserError with the image's name, or `error` if every image decodes.
    """
    for split in {run.config.train_split, run.config.eval_split}:
        try:
            with console.working(f"looked for the damaged image in {split}"):
                name = sources.first_undecodable(run.source, split)
        except errors.UserError:
            continue  # No such split.
        if name is not None:
            return errors.UserError(
                f"The image {name} of {split!r} cannot be decoded; repair it or take it out. "
                "Training goes on from the last checkpoint when you run the same command again."
            )
    return error
