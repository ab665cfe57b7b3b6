"""What no data and no machine could make possible: settings that are refused at once."""

from __future__ import annotations

import math

from simclr_tf import config as config_lib
from simclr_tf import errors
from simclr_tf.config import decay
from simclr_tf.data import operation_names

Config = config_lib.Config


def check(config: Config) -> None:
    """Raises UserError if a setting is impossible whatever the data and the machine."""
    _check_choices(config)
    _check_bounds(config)
    if not config.pretraining and config.ft_proj_selector:
        _check_selector(config)
    if config.encoder != "resnet":
        _check_foreign_encoder(config)
    _check_objective(config)
    _check_samples_per_class(config)
    if config.format != "serving" and config.mode != "export":
        raise errors.UserError(
            f"--format={config.format} belongs to --mode=export and does nothing with "
            f"--mode={config.mode}; leave it out."
        )
    _check_decay(config)
    if config.augmentation != "auto":
        operation_names.parse(config.augmentation)
    if config.data_service is not None and not config.data_service.startswith("grpc://"):
        raise errors.UserError(
            f"--data_service={config.data_service} is no address; give that of the dispatcher, "
            "as in grpc://HOST:PORT."
        )
    if config.num_virtual_cpus > 1 and config.use_tpu:
        raise errors.UserError("--num_virtual_cpus splits a CPU; leave it out with --use_tpu.")


def _check_choices(config: Config) -> None:
    for name, choices in (
        ("mode", config_lib.MODES),
        ("train_mode", config_lib.TRAIN_MODES),
        ("objective", config_lib.OBJECTIVES),
        ("negatives", config_lib.NEGATIVES),
        ("optimizer", config_lib.OPTIMIZERS),
        ("learning_rate_scaling", config_lib.LEARNING_RATE_SCALINGS),
        ("learning_rate_decay", decay.DECAYS),
        ("proj_head_mode", config_lib.PROJ_HEAD_MODES),
        ("mixed_precision", config_lib.MIXED_PRECISIONS),
        ("stem", config_lib.STEM_CHOICES),
        ("augmentation_branches", config_lib.BRANCHES),
        ("augment_on", config_lib.AUGMENT_ON),
        ("brightness", config_lib.BRIGHTNESSES),
        ("jitter_order", config_lib.JITTER_ORDERS),
        ("format", config_lib.FORMATS),
    ):
        value = getattr(config, name)
        if value not in choices:
            short = ", pretrain, finetune" if name == "mode" else ""
            raise errors.UserError(
                f"--{name} must be one of {', '.join(choices)}{short}, got {value!r}."
            )


def _check_bounds(config: Config) -> None:
    at_least = {
        "train_batch_size": (2, "a view needs other images to differ from"),
        "image_size": (8, "it is the side of the square that the encoder sees, in pixels"),
        "width_multiplier": (1, "it multiplies the channels"),
        "num_proj_layers": (1, "use --proj_head_mode=none for no head"),
        "proj_out_dim": (1, "it is the width of the projection"),
        "margin": (0, "it is a difference of similarities"),
        "samples_per_class": (0, "0 draws images whatever their class"),
        "supcon_positives": (0, "0 keeps all positives"),
        "mixup": (0, "0 switches it off"),
        "cutmix": (0, "0 switches it off"),
        "accum_chunks": (1, "1 takes the batch at once"),
        "eval_batch_size": (1, "it counts images"),
        "train_epochs": (0, "it counts passes over the data"),
        "train_steps": (0, "0 means that --train_epochs decides"),
        "eval_steps": (0, "0 means the whole split"),
        "warmup_epochs": (0, "0 means no warm-up"),
        "weight_decay": (0, "0 switches it off"),
        "max_bad_images": (0, "0 stops at the first"),
        "randaugment_layers": (1, "it counts operations per view"),
        "color_jitter_strength": (0, "0 switches colour distortion off"),
        "checkpoint_epochs": (1, "use --checkpoint_steps for less than an epoch"),
        "checkpoint_steps": (0, "0 means that --checkpoint_epochs decides"),
        "keep_checkpoint_max": (1, "a run must keep its last checkpoint to be resumed"),
        "keep_hub_module_max": (1, "the last SavedModel is kept"),
        "train_summary_steps": (0, "0 chooses for you"),
        "linear_eval_examples": (10, "a probe needs examples to learn from"),
        "num_virtual_cpus": (1, "1 means the CPU as it is"),
    }
    for name, (bound, why) in at_least.items():
        value = getattr(config, name)
        if not value >= bound:  # Written so that NaN fails too.
            raise errors.UserError(f"--{name} must be at least {bound} ({why}), got {value}.")
    for name in ("temperature", "learning_rate", "distillation_temperature"):
        value = getattr(config, name)
        if not (value > 0 and math.isfinite(value)):
            raise errors.UserError(f"--{name} must be greater than 0, got {value}.")
    for name, low, high in (
        ("momentum", 0, 1),
        ("batch_norm_decay", 0, 1),
        ("sk_ratio", 0, 1),
        ("se_ratio", 0, 1),
        ("crop_area_min", 0.01, 1),
        ("randaugment_level", 0, 10),
        ("label_smoothing", 0, 0.99),
        ("distillation_weight", 0, 1),
    ):
        value = getattr(config, name)
        if not low <= value <= high:
            raise errors.UserError(f"--{name} must be between {low} and {high}, got {value}.")
    if not -1 <= config.fine_tune_after_block <= 4:
        raise errors.UserError(
            "--fine_tune_after_block must be -1 (train all), 0 (freeze the stem), 1 to 3 (freeze "
            f"up to that group) or 4 (only the head), got {config.fine_tune_after_block}."
        )


# What only some objectives read: a setting that would do nothing is refused.
_READ_BY = {
    "negatives": config_lib.UNSUPERVISED_OBJECTIVES,
    "semi_hard": ("nt_logistic", "margin_triplet"),
    "margin": ("margin_triplet",),
    "supcon_positives": ("supcon", "supcon_in"),
    "samples_per_class": (*config_lib.SUPERVISED_CONTRAST, "supervised"),
    "scale_by_temperature": config_lib.SUPERVISED_CONTRAST,
    "label_smoothing": ("supervised",),
    "mixup": ("supervised",),
    "cutmix": ("supervised",),
    "teacher": ("distill",),
    "distillation_temperature": ("distill",),
    "distillation_weight": ("distill",),
}


def _check_objective(config: Config) -> None:
    objective = config.resolved_objective
    for name, objectives in _READ_BY.items():
        value = getattr(config, name)
        if value != getattr(Config, name) and objective not in objectives:
            raise errors.UserError(
                f"--{name}={value} belongs to --objective={'|'.join(objectives)} and does nothing "
                f"with {objective}; leave it out."
            )
    if config.train_mode == "finetune" and config.pretraining:
        raise errors.UserError(
            f"--objective={objective} pretrains; leave out --train_mode=finetune, or fine-tune "
            "with --objective=supervised."
        )
    if config.mixup and config.cutmix:
        raise errors.UserError(
            f"--mixup={config.mixup:g} and --cutmix={config.cutmix:g} both mix images; use one."
        )
    if objective == "distill" and config.teacher is None:
        raise errors.UserError(
            "--objective=distill has no teacher; name a trained run or a SavedModel by --teacher."
        )


def _check_samples_per_class(config: Config) -> None:
    m, batch = config.samples_per_class, config.train_batch_size
    if m and batch % m:
        near = min((d for d in range(1, batch + 1) if batch % d == 0), key=lambda d: abs(d - m))
        raise errors.UserError(
            f"--samples_per_class={m} does not divide --train_batch_size={batch}; use {near}."
        )
    for name in ("cache_dataset", "data_service"):
        if m and getattr(config, name):
            raise errors.UserError(
                f"--samples_per_class={m} reads images by their number, which --{name} cannot do; "
                f"leave out --{name}."
            )


def _check_decay(config: Config) -> None:
    for name in ("decay_epochs", "decay_factor"):
        value, unset = getattr(config, name), getattr(Config, name) or ""
        if value not in (None, unset) and config.learning_rate_decay == "cosine":
            raise errors.UserError(
                f"--{name}={value} belongs to --learning_rate_decay=exponential|step and does "
                f"nothing with cosine; leave it out, or say --{name}={unset} if a flagfile sets it."
            )
    _ = config.decay_at  # Refuses epochs that the decay cannot use.


def _check_foreign_encoder(config: Config) -> None:
    """Refuses what only a ResNet has; not the depth, which recipes set for all."""
    for name in ("width_multiplier", "stem", "sk_ratio", "se_ratio", "recompute"):
        value = getattr(config, name)
        if value != getattr(Config, name):
            raise errors.UserError(
                f"--{name}={value} belongs to --encoder=resnet and does nothing with "
                f"{config.encoder}; leave it out."
            )
    if config.fine_tune_after_block not in (-1, 4):
        raise errors.UserError(
            f"--fine_tune_after_block={config.fine_tune_after_block} counts the block groups of a "
            f"ResNet, and {config.encoder} has none; use -1 (train all) or 4 (only the head)."
        )


def _check_selector(config: Config) -> None:
    layers = {"none": 0, "linear": 1, "nonlinear": config.num_proj_layers}[config.proj_head_mode]
    if not -1 <= config.ft_proj_selector <= layers:
        raise errors.UserError(
            f"--ft_proj_selector={config.ft_proj_selector} asks for a layer that a projection head "
            f"of {layers} layers does not have; use 0 (the encoder) to {layers}, or -1 (the last)."
        )
