"""One run, described: a frozen value that the command line fills in and the package reads."""

from __future__ import annotations

import dataclasses
import math

from simclr_tf import errors
from simclr_tf.data import compositions
from simclr_tf.training import decays

MODES = (
    "train",
    "eval",
    "train_then_eval",
    "export",
    "convert",
    "check_data",
    "show_views",
)
TRAIN_MODES = ("pretrain", "finetune")
# What contrastive objectives there are; of these, the second group reads labels.
UNSUPERVISED_OBJECTIVES = ("nt_xent", "nt_logistic", "margin_triplet")
SUPERVISED_CONTRAST = ("supcon", "supcon_in", "n_pairs")
CONTRASTIVE_OBJECTIVES = (*UNSUPERVISED_OBJECTIVES, *SUPERVISED_CONTRAST)
OBJECTIVES = ("auto", *CONTRASTIVE_OBJECTIVES, "supervised", "distill")
NEGATIVES = ("both", "one")
OPTIMIZERS = ("lars", "momentum", "rmsprop", "adam", "adamw", "lamb")
LEARNING_RATE_SCALINGS = ("linear", "sqrt")
PROJ_HEAD_MODES = ("none", "linear", "nonlinear")
MIXED_PRECISIONS = ("none", "bfloat16", "float16")
STEM_CHOICES = ("auto", "small", "imagenet")
BRANCHES = ("both", "one")
AUGMENT_ON = ("host", "device")
BRIGHTNESSES = ("multiplicative", "additive")
JITTER_ORDERS = ("random", "fixed")
FORMATS = ("serving", "official")

# At or below this side, images keep their resolution: 3x3 stem, no centre crop in evaluation.
SMALL_IMAGE = 32


@dataclasses.dataclass(frozen=True)
class Config:
    """All settings of a run; `flags/definitions.py` explains each, under the same name."""

    # What to do.
    mode: str = "train"
    train_mode: str = "pretrain"
    model_dir: str | None = None
    checkpoint: str | None = None
    format: str = "serving"
    seed: int = 0
    # Data.
    dataset: str = "imagenet2012"
    data_dir: str | None = None
    train_split: str = "train"
    eval_split: str = "validation"
    image_size: int = 224
    cache_dataset: bool = False
    max_bad_images: int = 0
    data_service: str | None = None
    samples_per_class: int = 0
    # Views.
    augmentation: str = "auto"
    augmentation_branches: str = "both"
    augment_on: str = "host"
    use_crop: bool = True
    crop_area_min: float = 0.08
    use_flip: bool = True
    use_color_jitter: bool = True
    use_color_drop: bool = True
    use_blur: bool = True
    color_jitter_strength: float = 1.0
    brightness: str = "multiplicative"
    jitter_order: str = "random"
    randaugment_layers: int = 2
    randaugment_level: float = 10.0
    # Model.
    encoder: str = "resnet"
    resnet_depth: int = 50
    width_multiplier: int = 1
    stem: str = "auto"
    sk_ratio: float = 0.0
    se_ratio: float = 0.0
    proj_head_mode: str = "nonlinear"
    proj_out_dim: int = 128
    num_proj_layers: int = 3
    proj_head_bn: bool = True
    normalize_features: bool = False
    ft_proj_selector: int = 0
    global_bn: bool = True
    batch_norm_decay: float = 0.9
    # Objective.
    objective: str = "auto"
    temperature: float = 0.1
    hidden_norm: bool = True
    negatives: str = "both"
    semi_hard: bool = False
    margin: float = 0.8
    supcon_positives: int = 0
    scale_by_temperature: bool = False
    lineareval_while_pretraining: bool = True
    # Classification.
    label_smoothing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    teacher: str | None = None
    distillation_temperature: float = 1.0
    distillation_weight: float = 1.0
    # Fine-tuning.
    fine_tune_after_block: int = -1
    zero_init_logits_layer: bool = False
    # Training.
    train_batch_size: int = 512
    train_epochs: int = 100
    train_steps: int = 0
    accum_chunks: int = 1
    optimizer: str = "lars"
    learning_rate: float = 0.3
    learning_rate_scaling: str = "linear"
    learning_rate_decay: str = "cosine"
    decay_epochs: str | None = None
    decay_factor: float = 0.1
    warmup_epochs: float = 10
    momentum: float = 0.9
    weight_decay: float = 1e-6
    # Checkpoints and logs.
    checkpoint_epochs: int = 1
    checkpoint_steps: int = 0
    keep_checkpoint_max: int = 5
    keep_hub_module_max: int = 1
    train_summary_steps: int = 0
    # Evaluation.
    eval_batch_size: int = 256
    eval_steps: int = 0
    eval_name: str | None = None
    linear_eval: bool = True
    linear_eval_examples: int = 100_000
    # Machine.
    use_tpu: bool = False
    tpu_name: str | None = None
    tpu_zone: str | None = None
    gcp_project: str | None = None
    master: str | None = None
    num_virtual_cpus: int = 1
    mixed_precision: str = "none"
    jit_compile: bool = False
    recompute: bool = False

    @property
    def resolved_objective(self) -> str:
        """The objective by name, which --train_mode chooses if it is left to us."""
        if self.objective != "auto":
            return self.objective
        return "nt_xent" if self.train_mode == "pretrain" else "supervised"

    @property
    def pretraining(self) -> bool:
        """Whether training is contrastive, rather than of a classifier."""
        return self.resolved_objective in CONTRASTIVE_OBJECTIVES

    @property
    def reads_labels(self) -> bool:
        """Whether the encoder learns from labels."""
        objective = self.resolved_objective
        if objective == "distill":
            return self.distillation_weight < 1
        return objective not in UNSUPERVISED_OBJECTIVES

    @property
    def decay_at(self) -> tuple[float, ...]:
        """The epochs of --decay_epochs: when the rate falls, or how often (exponential)."""
        return decays.parse(self.learning_rate_decay, self.decay_epochs, self.decay_factor)

    @property
    def resolved_stem(self) -> str:
        """The stem by name, chosen by image size if left to us."""
        if self.stem != "auto":
            return self.stem
        return "small" if self.image_size <= SMALL_IMAGE else "imagenet"

    def check(self) -> None:
        """Raises UserError if a setting is impossible whatever the data and the machine."""
        _check_choices(self)
        _check_bounds(self)
        if not self.pretraining and self.ft_proj_selector:
            _check_selector(self)
        if self.encoder != "resnet":
            _check_foreign_encoder(self)
        _check_objective(self)
        _check_samples_per_class(self)
        if self.format != "serving" and self.mode != "export":
            raise errors.UserError(
                f"--format={self.format} belongs to --mode=export and does nothing with "
                f"--mode={self.mode}; leave it out."
            )
        _check_decay(self)
        if self.augmentation != "auto":
            compositions.parse(self.augmentation)
        if self.data_service is not None and not self.data_service.startswith("grpc://"):
            raise errors.UserError(
                f"--data_service={self.data_service} is no address; give that of the dispatcher, "
                "as in grpc://HOST:PORT."
            )
        if self.num_virtual_cpus > 1 and self.use_tpu:
            raise errors.UserError("--num_virtual_cpus splits a CPU; leave it out with --use_tpu.")


def _check_choices(config: Config) -> None:
    for name, choices in (
        ("mode", MODES),
        ("train_mode", TRAIN_MODES),
        ("objective", OBJECTIVES),
        ("negatives", NEGATIVES),
        ("optimizer", OPTIMIZERS),
        ("learning_rate_scaling", LEARNING_RATE_SCALINGS),
        ("learning_rate_decay", decays.DECAYS),
        ("proj_head_mode", PROJ_HEAD_MODES),
        ("mixed_precision", MIXED_PRECISIONS),
        ("stem", STEM_CHOICES),
        ("augmentation_branches", BRANCHES),
        ("augment_on", AUGMENT_ON),
        ("brightness", BRIGHTNESSES),
        ("jitter_order", JITTER_ORDERS),
        ("format", FORMATS),
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
    "negatives": UNSUPERVISED_OBJECTIVES,
    "semi_hard": ("nt_logistic", "margin_triplet"),
    "margin": ("margin_triplet",),
    "supcon_positives": ("supcon", "supcon_in"),
    "samples_per_class": (*SUPERVISED_CONTRAST, "supervised"),
    "scale_by_temperature": SUPERVISED_CONTRAST,
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
        value = getattr(config, name)
        if value != getattr(Config, name) and config.learning_rate_decay == "cosine":
            raise errors.UserError(
                f"--{name}={value} belongs to --learning_rate_decay=exponential|step and does "
                "nothing with cosine; leave it out."
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
