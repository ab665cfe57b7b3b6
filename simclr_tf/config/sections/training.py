"""The length of the training, the batch and the optimizer."""

from __future__ import annotations

import dataclasses

from simclr_tf.config import decay
from simclr_tf.config.metadata import Section
from simclr_tf.config.sections import bounds

_TRAINING = Section("Training")


@dataclasses.dataclass(frozen=True)
class TrainingSettings:
    """The length of the training, the batch and the optimizer."""

    train_batch_size: int = _TRAINING.setting(
        512,
        "Images per step over all replicas; pretraining makes --num_views of each. A multiple of "
        "the number of replicas. If it is not given and the default does not suit the number of "
        "images or replicas, a smaller one is chosen, and stored with the run.",
        at_least=2,
        reason="a view is contrasted with other images",
        at_most=bounds.MAX_BATCH,
        limit_reason="larger ones do not fit in memory",
    )
    train_epochs: int = _TRAINING.setting(
        100,
        "Passes over the training split. The papers: 100 to 1000; to fine-tune, 60 on 1% of "
        "ImageNet's labels and 30 on 10%.",
        fine_tuning=60,
        at_least=0,
        reason="it counts passes over the data",
        at_most=bounds.MANY_EPOCHS,
        limit_reason="no training takes as long",
    )
    train_steps: int = _TRAINING.setting(
        0,
        "Number of training steps; above 0, it overrides --train_epochs.",
        at_least=0,
        reason="0 leaves it to --train_epochs",
        at_most=bounds.MAX_STEPS,
        limit_reason="no training takes as long",
    )
    accum_chunks: int = _TRAINING.setting(
        1,
        "Processes each replica's batch in this many chunks, with the gradient of the whole batch, "
        "negatives included: the memory of one chunk, for about 4/3 of the time. Batch norm sees "
        "one chunk at a time.",
        at_least=1,
        reason="1 processes the batch at once",
        at_most=bounds.MAX_BATCH,
        limit_reason="no batch is larger",
    )
    optimizer: str = _TRAINING.setting(
        "lars",
        "The papers pretrain with lars, and fine-tune and evaluate with momentum (Nesterov) or "
        "lars; SupCon also uses rmsprop. lamb needs tensorflow-addons (Python 3.11).",
        choices=("lars", "momentum", "rmsprop", "adam", "adamw", "lamb"),
        fine_tuning="momentum",
        resume="never",
    )
    learning_rate: float = _TRAINING.setting(
        0.3,
        "Base learning rate, which --learning_rate_scaling scales with the batch size. The papers: "
        "0.3, to fine-tune 0.05, and for a linear classifier on a frozen encoder 0.1.",
        fine_tuning=0.05,
        at_least=1e-12,
        at_most=1e30,
        reason="smaller ones change nothing",
        limit_reason="larger ones overflow",
    )
    learning_rate_scaling: str = _TRAINING.setting(
        "linear",
        "linear: rate * batch / 256. sqrt: rate * sqrt(batch), which is on a different scale: 0.3 "
        "linear and 0.075 sqrt agree at batch 4096. sqrt is better for small batches.",
        choices=("linear", "sqrt"),
    )
    learning_rate_decay: str = _TRAINING.setting(
        "cosine",
        "Decay after warm-up. cosine: half a cosine to 0, as the papers pretrain. exponential: "
        "times --decay_factor every --decay_epochs epochs after warm-up (SupCon's classifiers on "
        "ImageNet: 0.97 every 0.5). step: times --decay_factor at each of the --decay_epochs (on "
        "CIFAR-10: 0.2 at 60,75,90).",
        choices=decay.KINDS,
    )
    decay_epochs: str | None = _TRAINING.setting(
        None,
        "exponential: one number, the epochs between two decays. step: the epochs of the decays, "
        "counted from the start of training, comma-separated.",
        only_with=("learning_rate_decay", ("exponential", "step")),
    )
    decay_factor: float = _TRAINING.setting(
        0.1,
        "Multiplies the learning rate at each decay.",
        only_with=("learning_rate_decay", ("exponential", "step")),
        at_least=0,
        at_most=1,
    )
    warmup_epochs: float = _TRAINING.setting(
        10.0,
        "Epochs of linear warm-up of the learning rate from 0.",
        fine_tuning=0.0,
        at_least=0,
        reason="0 means no warm-up",
        at_most=bounds.MANY_EPOCHS,
        limit_reason="no training takes as long",
    )
    momentum: float = _TRAINING.setting(
        0.9, "Momentum coefficient (lars, momentum, rmsprop).", at_least=0, at_most=1
    )
    weight_decay: float = _TRAINING.setting(
        1e-6,
        "L2 weight decay. SimCLR's paper: 1e-6, and none to fine-tune; its published commands to "
        "pretrain: 1e-4.",
        fine_tuning=0.0,
        at_least=0,
        reason="0 turns it off",
        at_most=1000,
        limit_reason="usual are 1e-6 to 1e-3",
    )

    clip_gradient_norm: float = _TRAINING.setting(
        0.0,
        "Scales the gradient of a step down to this norm, over all variables and replicas, if it "
        "is larger. train/gradient_norm in metrics.jsonl is the norm before. Usual values: 1 with "
        "adamw and lamb, 1 to 10 with momentum. With lars it changes little: lars divides the "
        "gradient of each layer by its norm. 0 turns it off.",
        at_least=1e-6,
        at_most=1e6,
        zero_is_off=True,
        reason="0 turns it off",
    )
