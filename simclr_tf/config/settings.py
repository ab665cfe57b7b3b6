"""One run, described: a frozen value that the command line fills in and the package reads."""

from __future__ import annotations

import dataclasses

from simclr_tf.config import decay
from simclr_tf.data import operation_names

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
BRANCHES = operation_names.BRANCHES
AUGMENT_ON = ("auto", "host", "device")
BRIGHTNESSES = ("multiplicative", "additive")
JITTER_ORDERS = ("random", "fixed")
FORMATS = ("serving", "official")


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
    augment_on: str = "auto"
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
    def resolved_augment_on(self) -> str:
        """Where views are made: on the host, unless a chunk's views alone are to be in memory."""
        if self.augment_on != "auto":
            return self.augment_on
        return "device" if self.accum_chunks > 1 else "host"

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
        return decay.parse(self.learning_rate_decay, self.decay_epochs, self.decay_factor)

    @property
    def resolved_stem(self) -> str:
        """The stem by name, chosen by image size if left to us."""
        if self.stem != "auto":
            return self.stem
        return "small" if self.image_size <= operation_names.SMALL_IMAGE else "imagenet"
