"""What the network learns: by contrast, from labels, or from a teacher."""

from __future__ import annotations

import dataclasses

from simclr_tf.config.metadata import Section
from simclr_tf.config.sections import bounds

# Contrastive objectives; those of the second group read labels.
UNSUPERVISED_OBJECTIVES = ("nt_xent", "nt_logistic", "margin_triplet")
SUPERVISED_CONTRAST = ("supcon", "supcon_in", "n_pairs")
CONTRASTIVE_OBJECTIVES = (*UNSUPERVISED_OBJECTIVES, *SUPERVISED_CONTRAST)
# Those that compare a view with all others in one softmax, of which several may be positives.
SOFTMAX_OBJECTIVES = ("nt_xent", *SUPERVISED_CONTRAST)
OBJECTIVES = ("auto", *CONTRASTIVE_OBJECTIVES, "supervised", "distill")

_SUPERVISED = ("objective", ("supervised",))
_DISTILL = ("objective", ("distill",))
_CLASSIFIES = ("objective", ("supervised", "distill"))
_RESNET = ("encoder", ("resnet",))

_OBJECTIVE = Section("Objective")
_CLASSIFICATION = Section("Classification")
_FINE_TUNING = Section("Fine-tuning")


@dataclasses.dataclass(frozen=True)
class ObjectiveSettings:
    """What the network learns: by contrast, from labels, or from a teacher."""

    # Objective.
    objective: str = _OBJECTIVE.setting(
        "auto",
        "auto: nt_xent (SimCLR) for pretraining, supervised (cross-entropy) for fine-tuning. "
        "nt_logistic and margin_triplet are those of SimCLR's table 2. supcon learns from labels "
        "which views belong together (L_out), of images with several labels by MulSupCon "
        "(docs/several_labels.md); supcon_in is L_in; n_pairs takes one other image of "
        "the class (its paper: --temperature=1). distill learns from --teacher.",
        choices=OBJECTIVES,
        resume="never",
    )
    temperature: float = _OBJECTIVE.setting(
        0.1,
        "Divides the similarities of the contrastive loss. The papers' best values: 0.1 on "
        "ImageNet and for SupCon, 0.5 on CIFAR-10 in long training.",
        at_least=1e-4,
        at_most=10_000,
        reason="beyond these, float32 is not precise enough",
    )
    hidden_norm: bool = _OBJECTIVE.setting(
        True, "l2-normalises the projections, so that similarities are cosines."
    )
    negatives: str = _OBJECTIVE.setting(
        "both",
        "Negatives of a view: all views of other images, or only those of the other side, as in "
        "SimCLR's comparison of losses (B.10).",
        choices=("both", "one"),
        only_with=("objective", UNSUPERVISED_OBJECTIVES),
    )
    decoupled: bool = _OBJECTIVE.setting(
        False,
        "Leaves the positives out of the denominators of the loss (DCL, Yeh et al. 2022, without "
        "its weights), so that an easy positive no longer weakens the gradient. A departure from "
        "SimCLR. The paper of DCL, ImageNet, batch 256, 200 epochs: 61.8% without, 66.9% with it, "
        "68.2% with tuned settings.",
        only_with=("objective", SOFTMAX_OBJECTIVES),
    )
    semi_hard: bool = _OBJECTIVE.setting(
        False,
        "Uses only the hardest negative that is less similar than the positive, instead of all: 6 "
        "points better in the paper.",
        only_with=("objective", ("nt_logistic", "margin_triplet")),
    )
    margin: float = _OBJECTIVE.setting(
        0.8,
        "Margin of margin_triplet, in cosine similarity. The paper tried 0, 0.4, 0.8 and 1.6.",
        at_least=0,
        reason="it is a difference of similarities",
        only_with=("objective", ("margin_triplet",)),
        at_most=1000,
        limit_reason="cosine similarities differ by at most 2",
    )
    supcon_positives: int = _OBJECTIVE.setting(
        0,
        "Maximum number of positives per view; the other views of the same image are the first. "
        "Positives beyond the limit are left out of the denominator, too. 0: no limit. The paper: "
        "69.3% with 1, 78.0% with 5, 78.5% with all.",
        at_least=0,
        reason="0 keeps all positives",
        only_with=("objective", ("supcon", "supcon_in")),
        at_most=bounds.MAX_BATCH,
        limit_reason="no batch is larger",
    )
    supcon_class_average: bool = _OBJECTIVE.setting(
        False,
        "Takes the mean over the views of each class in the denominators of SupCon's losses, in "
        "place of their sum, so that frequent classes do not dominate them (class averaging of "
        "Zhu et al. 2022, Balanced Contrastive Learning, without its class complements). All "
        "similarities are then kept at once, which for B images of two views and R replicas takes "
        "16 B^2 / R bytes per replica, several times.",
        only_with=("objective", ("supcon", "supcon_in")),
    )
    scale_by_temperature: bool = _OBJECTIVE.setting(
        False,
        "Multiplies SupCon's losses by the temperature, as its paper does, so that the learning "
        "rate does not depend on it.",
        only_with=("objective", SUPERVISED_CONTRAST),
    )
    lineareval_while_pretraining: bool = _OBJECTIVE.setting(
        True,
        "If there are labels, trains a linear head during pretraining, behind a stop_gradient: the "
        "encoder learns nothing from it.",
        resume="never",
    )

    # Classification.
    label_smoothing: float = _CLASSIFICATION.setting(
        0.0,
        "Label smoothing of the cross-entropy, from 0 to 1. SupCon's ImageNet baselines: 0.05.",
        at_least=0,
        at_most=0.99,
        only_with=_SUPERVISED,
    )
    class_balance: float = _CLASSIFICATION.setting(
        0.0,
        "beta of the class-balanced cross-entropy (Cui et al. 2019): a class of n training images "
        "has the weight (1 - beta) / (1 - beta^n), divided by the mean weight of the classes. 0: "
        "all classes count by their images; towards 1, all classes count alike. The paper's code "
        "for CIFAR has 0.9999. Of images with several labels, the images that show a class are "
        "balanced against those that do not. class_counts.json has the numbers of images.",
        at_least=0,
        at_most=0.999999,
        reason="0 turns it off, and 1 would divide by 0",
        only_with=_SUPERVISED,
    )
    mixup: float = _CLASSIFICATION.setting(
        0.0,
        "Parameter a of mixup: each image is mixed with another one of its replica's batch, with a "
        "weight drawn from Beta(a, a). 0 turns it off. The usual value for ImageNet is 0.2.",
        at_least=0.01,
        at_most=100,
        zero_is_off=True,
        reason="0 turns it off",
        only_with=_SUPERVISED,
    )
    cutmix: float = _CLASSIFICATION.setting(
        0.0,
        "Parameter a of CutMix: as in --mixup, but a box of the other image is pasted instead. 0 "
        "turns it off. The paper uses 1.",
        at_least=0.01,
        at_most=100,
        zero_is_off=True,
        reason="0 turns it off",
        only_with=_SUPERVISED,
    )
    teacher: str | None = _CLASSIFICATION.setting(
        None,
        "Trained classifier that --objective=distill learns from: a run directory, or a SavedModel "
        "with logits, also of google-research/simclr.",
        only_with=_DISTILL,
        is_path=True,
    )
    distillation_temperature: float = _CLASSIFICATION.setting(
        1.0,
        "Temperature of both softmaxes in distillation. SimCLRv2: 0.1 if the student has the "
        "teacher's architecture, 1 if it is smaller.",
        at_least=1e-4,
        at_most=1e4,
        only_with=_DISTILL,
        reason="float32 cannot represent the result beyond",
    )
    distillation_weight: float = _CLASSIFICATION.setting(
        1.0,
        "Weight of the teacher in the loss, from 0 to 1; labels have the remaining weight. At 1, "
        "no label is read.",
        at_least=0,
        at_most=1,
        only_with=_DISTILL,
    )

    # Fine-tuning.
    fine_tune_after_block: int = _FINE_TUNING.setting(
        -1,
        "-1 trains everything; 0 freezes the stem, 1 to 3 up to that block group, 4 the whole "
        "encoder (linear evaluation by gradient descent). Frozen batch norm layers stay frozen.",
        at_least=-1,
        at_most=4,
        reason="-1 trains everything, 0 freezes the stem, 1 to 3 up to that block group, 4 the "
        "encoder",
        only_with=_CLASSIFIES,
        resume="never",
    )
    zero_init_logits_layer: bool = _FINE_TUNING.setting(
        False,
        "Initialises the classifier with zeros.",
        resume="never",
    )
