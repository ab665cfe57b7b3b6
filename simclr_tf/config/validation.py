"""Validates a Config on its own, before TensorFlow is imported or any data is read."""

from __future__ import annotations

import dataclasses
from typing import Any

from simclr_tf import errors, paths, pixel_format, text
from simclr_tf.config import augmentations, flagfile, metadata, objectives, other_images
from simclr_tf.config.sections import embeddings
from simclr_tf.config.sections.serving import FORMAT_DTYPES
from simclr_tf.config.settings import Config
from simclr_tf.data import label_origin

# Short forms of --mode: what they mean for --mode and --train_mode.
SHORT_MODES = {"pretrain": ("train", "pretrain"), "finetune": ("train_then_eval", "finetune")}


def validate(config: Config) -> None:
    """Refuses settings that are invalid on any data and any hardware.

    Raises:
        UserError: for the first setting that is out of range, has no effect, or contradicts
            another one.
    """
    for field in dataclasses.fields(config):
        _check_range(config, field.name, metadata.describe(field))
    for field in dataclasses.fields(config):
        _check_effect(config, field.name, metadata.describe(field))
    _check_labels(config)
    _check_channels(config)
    objectives.check(config)
    if config.ft_proj_selector:
        _check_selector(config)
    if config.encoder != "resnet":
        _check_frozen_groups(config)
    _check_samples_per_class(config)
    if config.mode == "transfer":
        _check_transfer(config)
    _check_few_labels(config)
    _ = config.decay  # Raises for epochs that the decay cannot use.
    _ = config.view_sizes  # Raises for sizes that training cannot have.
    if config.progressive_resizing and config.teacher:
        raise errors.UserError(
            f"--progressive_resizing={config.progressive_resizing} cannot be used with --teacher, "
            "which reads images of --image_size; leave one of them out."
        )
    if config.evaluation_names and not config.linear_eval:
        raise errors.UserError(
            f"--evaluations={config.evaluations} reads the classifier and the features that "
            "--nolinear_eval leaves out; give --linear_eval, or --evaluations=none."
        )
    if config.validation_examples and not config.eval_epochs:
        raise errors.UserError(
            f"--validation_examples={config.validation_examples} has no effect without "
            "--eval_epochs; set that, or leave it out."
        )
    if config.mode == "runs" and config.under is None:
        raise errors.UserError(
            "--mode=runs has no folder to search; set --under to one with runs, as in --under=runs."
        )
    _check_export(config)
    if config.mode in embeddings.EMBEDDING_MODES:
        _check_embeddings(config)
    other_images.check(config)
    augmentations.check(config)
    if config.data_service is not None and not config.data_service.startswith("grpc://"):
        raise errors.UserError(
            f"--data_service={config.data_service} is not an address; give the dispatcher's, as in "
            "grpc://HOST:PORT."
        )
    if config.num_virtual_cpus > 1 and config.use_tpu:
        raise errors.UserError("--num_virtual_cpus splits a CPU; leave it out with --use_tpu.")
    if config.mixed_precision == "float16" and config.use_tpu:
        raise errors.UserError(
            "--mixed_precision=float16 scales the loss, which TPUs do not support; use "
            "--mixed_precision=bfloat16."
        )


def _check_export(config: Config) -> None:
    """Refuses outputs that do not exist, and what an export of the format cannot have."""
    dtypes = FORMAT_DTYPES[config.format]
    if config.export_dtype not in dtypes:
        others = [name for name, has in FORMAT_DTYPES.items() if config.export_dtype in has]
        raise errors.UserError(
            f"--export_dtype={config.export_dtype} is not for --format={config.format}; choose "
            f"--export_dtype={'|'.join(dtypes)}, or --format={'|'.join(others)}."
        )
    given = {
        "export_outputs": config.export_output_names is not None,
        "weights_license": config.weights_license is not None,
    }
    for name in given:
        if config.format == "official" and given[name]:
            raise errors.UserError(
                f"--{name}={getattr(config, name)} has no effect with --format=official, whose "
                "outputs and files are those of google-research/simclr; leave it out."
            )


def _check_embeddings(config: Config) -> None:
    """Refuses to embed, search or audit without the paths that this needs."""
    mode = config.mode
    if config.embeddings is None:
        what = {"embed": "to write", "search": "to search", "audit": "to audit"}[mode]
        other = "" if mode == "embed" else ", which --mode=embed writes"
        raise errors.UserError(
            f"--mode={mode} has no embeddings {what}; set --embeddings to a folder{other}."
        )
    if mode == "embed" and config.checkpoint is None:
        raise errors.UserError(
            "--mode=embed has no weights; set --checkpoint to a run (its --model_dir), a "
            "checkpoint of one, or weights of google-research/simclr."
        )
    if mode == "embed" and config.model_dir is not None:
        raise errors.UserError(
            f"--model_dir={config.model_dir} has no effect with --mode=embed, which reads the "
            "weights of --checkpoint and writes to --embeddings; leave it out, or give "
            "--model_dir= if a flagfile sets it."
        )
    if mode == "search" and config.query is None:
        raise errors.UserError(
            "--mode=search has nothing to search for; set --query to an image file, a folder of "
            "images, or a comma-separated list of these."
        )
    _ = config.embed_output_names  # Raises for an output that does not exist.


def _check_range(config: Config, name: str, setting: metadata.Setting) -> None:
    """Refuses a value that is not among the choices or outside of the bounds."""
    value = getattr(config, name)
    if setting.choices and value not in setting.choices:
        choices = (*setting.choices, *(SHORT_MODES if name == "mode" else ()))
        near = text.suggestion(str(value), choices)
        raise errors.UserError(
            f"--{name} must be one of {', '.join(choices)}, got {value!r}{near}."
        )
    low, high = setting.at_least, setting.at_most
    if low is None or high is None or (setting.zero_is_off and value == 0):
        return
    if low <= value <= high:  # NaN fails, too.
        return
    reason = f" ({setting.reason})" if setting.reason else ""
    bounds = f"{'0 or ' if setting.zero_is_off else ''}between {low} and {high}{reason}"
    if setting.limit_reason and value < low:
        bounds = f"at least {low}{reason}"
    elif setting.limit_reason:
        bounds = f"at most {high} ({setting.limit_reason})"
    raise errors.UserError(f"--{name} must be {bounds}, got {value}.")


def _check_effect(config: Config, name: str, setting: metadata.Setting) -> None:
    """Refuses a value that would have no effect beside the other settings."""
    value, default = getattr(config, name), getattr(Config, name)
    if setting.only_with is None or value == default:
        return
    other, values = setting.only_with
    actual = config.resolved_objective if other == "objective" else getattr(config, other)
    if actual not in values and not (_kind(actual) and _kind(actual) in map(_kind, values)):
        raise errors.UserError(
            f"--{name}={value} applies only to --{other}={'|'.join(values)} (the "
            f"{other.replace('_', ' ')} is {actual}); leave it out, or give "
            f"{flagfile.to_flag(name, default)} if a flagfile sets it."
        )


def _check_labels(config: Config) -> None:
    """Refuses labels that are neither in folders nor in a file, and those of other data sets."""
    dataset, labels = config.dataset, config.labels
    is_file = labels.lower().endswith(label_origin.SUFFIXES)
    if not is_file and labels not in (label_origin.FOLDERS, label_origin.NONE):
        raise errors.UserError(
            f"--labels must be folders, none or the path of a file "
            f"({', '.join(label_origin.SUFFIXES)}), got {labels!r}."
        )
    if dataset == label_origin.CSV:
        raise errors.UserError(f"--dataset={dataset} names no file; write it --dataset=csv:FILE.")
    if labels == label_origin.FOLDERS or dataset == label_origin.IMAGE_FOLDER:
        return
    if not dataset.startswith(label_origin.CSV):
        raise errors.UserError(
            f"--labels={labels} applies only to --dataset=image_folder (the dataset is {dataset}); "
            "leave it out, or give --labels=folders if a flagfile sets it."
        )
    if labels != config.resolved_labels:
        raise errors.UserError(
            f"--labels={labels} contradicts --dataset={dataset}, which has its own labels; leave "
            "one of them out."
        )


def _check_channels(config: Config) -> None:
    """Refuses a wrong number of channels, a name given twice, and what an encoder does itself."""
    if config.standardize and config.encoder.startswith("keras:"):
        raise errors.UserError(
            f"--standardize has no place before --encoder={config.encoder}, whose preprocessing "
            "takes values from 0 to 1; leave it out, or use another encoder."
        )
    names = text.listed(config.channel_names)
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise errors.UserError(
            f"--channel_names={config.channel_names} has {twice[0]} twice; name each channel once."
        )
    value = config.channels
    if value in ("auto", "rgb"):
        return
    if not value.isdecimal() or not 1 <= int(value) <= pixel_format.MAX_CHANNELS:
        raise errors.UserError(
            f"--channels must be auto, rgb or a number from 1 to {pixel_format.MAX_CHANNELS}, got "
            f"{value!r}."
        )


def _kind(value: Any) -> str | None:
    """Returns the beginning of a value such as tfrecord:GLOB; None for other values."""
    kind, colon, _ = str(value).partition(":")
    return kind if colon else None


def _check_samples_per_class(config: Config) -> None:
    m, batch = config.samples_per_class, config.train_batch_size
    if m and batch % m:
        raise errors.UserError(
            f"--samples_per_class={m} does not divide --train_batch_size={batch}; use "
            f"{text.nearest_divisor(batch, m)}."
        )
    for name in ("cache_dataset", "data_service"):
        if m and getattr(config, name):
            raise errors.UserError(
                f"--samples_per_class={m} reads images in random order, which --{name} cannot do; "
                f"leave out --{name}."
            )


def _check_transfer(config: Config) -> None:
    """Refuses to measure transfer without an encoder, data sets or a folder for the results."""
    needed = {
        "transfer_to": "name data sets or folders of images, as in --transfer_to=cifar10,./flowers",
        "checkpoint": "set it to the weights of the encoder, such as a training run",
        "model_dir": "name a folder for the results",
    }
    for name, remedy in needed.items():
        if not getattr(config, name):
            raise errors.UserError(f"--{name} is missing; {remedy}.")
    if config.group is not None:
        raise errors.UserError(
            f"--group={config.group} has no effect with --mode=transfer; leave it out, or give "
            "--group= if a flagfile sets it."
        )
    for name in ("transfer_to", "baselines"):
        value = getattr(config, name)
        listed = [paths.absolute(one) for one in text.listed(value)]
        for one in listed:
            if listed.count(one) > 1:
                given = text.listed(value)[listed.index(one)]
                raise errors.UserError(f"--{name}={value} names {given} twice; name it once.")


def _check_few_labels(config: Config) -> None:
    if config.labels_per_class and config.label_fraction:
        raise errors.UserError(
            f"--labels_per_class={config.labels_per_class} and "
            f"--label_fraction={config.label_fraction:g} both choose labels; use one."
        )
    for name in ("label_draw", "label_draws"):
        value, default = getattr(config, name), getattr(Config, name)
        if value != default and not config.has_few_labels:
            raise errors.UserError(
                f"--{name}={value} draws labels, and all are used; add --labels_per_class or "
                f"--label_fraction, or give --{name}={default} if a flagfile sets it."
            )
    if config.label_draws == 1:
        return
    if config.mode == "train":
        raise errors.UserError(
            f"--label_draws={config.label_draws} repeats an evaluation, and --mode=train has none; "
            "use --mode=train_then_eval, or choose one draw with --label_draw."
        )
    if config.mode == "eval" and config.reads_labels:
        raise errors.UserError(
            f"--label_draws={config.label_draws} repeats the linear evaluation of an encoder that "
            "learned without labels, and this one learned from those of a draw; repeat its "
            "training with --mode=train_then_eval, or evaluate it with --label_draws=1."
        )


def _check_frozen_groups(config: Config) -> None:
    """Refuses to freeze block groups of an encoder that has none."""
    if config.fine_tune_after_block not in (-1, 4):
        raise errors.UserError(
            f"--fine_tune_after_block={config.fine_tune_after_block} counts the block groups of a "
            f"ResNet, and {config.encoder} has none; use -1 (train all) or 4 (only the head)."
        )


def _check_selector(config: Config) -> None:
    layers = {"none": 0, "linear": 1, "nonlinear": config.num_proj_layers}[config.proj_head_mode]
    if not -1 <= config.ft_proj_selector <= layers:
        raise errors.UserError(
            f"--ft_proj_selector={config.ft_proj_selector} selects a layer that a projection head "
            f"of {layers} layers does not have; use 0 (the encoder) to {layers}, or -1 (the last)."
        )
