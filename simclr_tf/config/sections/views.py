"""The random views of an image."""

from __future__ import annotations

import dataclasses

from simclr_tf.config.metadata import Section
from simclr_tf.config.sections import objective
from simclr_tf.data import operation_names

_VIEWS = Section("Views")


@dataclasses.dataclass(frozen=True)
class ViewSettings:
    """The random views of an image."""

    num_views: int = _VIEWS.setting(
        2,
        "Views of each image of a batch in pretraining; the positives of a view are all others of "
        "its image (SupCon, eq. 2). SimCLR and SupCon use 2; more is a departure. With v views a "
        "step takes v / 2 times the computation and memory. Shidani et al. (2024) found more views "
        "of fewer images better at equal computation, with losses of their own.",
        at_least=2,
        reason="a view is contrasted with another one of its image",
        at_most=32,
        limit_reason="all views of a batch are in memory together",
        only_with=("objective", objective.SOFTMAX_OBJECTIVES),
    )
    augmentation: str = _VIEWS.setting(
        "auto",
        "auto: for pretraining simclr, for images of one channel simclr_grey, and of other than "
        "three simclr_multispectral; otherwise supervised (crop and flip). Or the name of a "
        f"policy: {', '.join(operation_names.POLICIES)}; of these simaugment and "
        "stacked_randaugment are SupCon's, and simclr_microscopy is for images without an upright. "
        "Or a list of operations in their order, such as "
        f"crop,color: crop, {', '.join(operation_names.OPERATIONS)}, and color for "
        "color_jitter,color_drop.",
    )
    augmentation_branches: str = _VIEWS.setting(
        "both",
        "one: all views but the first are only cropped, as in the paper's study of single "
        "operations.",
        choices=operation_names.BRANCHES,
    )
    augment_on: str = _VIEWS.setting(
        "auto",
        "Where views are made: on the host's CPU in parallel with training, or on the accelerator "
        "(device) as the first part of a training step. The pixels are equal. auto: host. If "
        "training waits for images for more than a fifth of its time, auto measures whether an "
        "accelerator is faster, and continues there if it is, after every start of the program and "
        "for each size of --progressive_resizing; not on several hosts, near the end, or with "
        "--data_service, --cache_dataset or --deterministic. With --accum_chunks it is the device, "
        "so that one chunk's views are in memory at a time.",
        choices=("auto", "host", "device"),
        resume="freely",
    )
    progressive_resizing: str | None = _VIEWS.setting(
        None,
        "Trains with smaller views first, whose steps take less time: SIZE:SHARE%, or several, "
        "whose sizes ascend. With 96:30%,128:40% views have a side of 96 pixels in the first 30% "
        "of the steps, 128 in the next 40%, and --image_size in the rest. Each size is compiled "
        "when it begins. Evaluation and exports are at --image_size. This is a departure from the "
        "papers. Not with --teacher.",
        only_with=("encoder", ("resnet",)),
    )
    use_crop: bool = _VIEWS.setting(
        True, "Random crop and resize. If off, images are only resized."
    )
    crop_area_min: float = _VIEWS.setting(
        0.08,
        "Smallest area of a random crop, as a fraction of the image's area. The paper: 0.08. The "
        "code of google-research/simclr has 0.1 in effect.",
        at_least=0.01,
        at_most=1,
    )
    use_flip: bool = _VIEWS.setting(True, "Horizontal flip with probability 0.5.")
    use_color_jitter: bool = _VIEWS.setting(
        True, "Brightness, contrast, saturation and hue, in random order, with probability 0.8."
    )
    use_color_drop: bool = _VIEWS.setting(True, "Conversion to grey with probability 0.2.")
    use_blur: bool = _VIEWS.setting(
        True,
        "Gaussian blur with probability 0.5. The paper uses it on ImageNet, not on CIFAR-10.",
    )
    color_jitter_strength: float = _VIEWS.setting(
        1.0,
        "Strength of the colour jitter: 1.0 for ImageNet, 0.5 for CIFAR-10 and for SupCon's "
        "policies. 0 turns off jitter and grey.",
        at_least=0,
        reason="0 turns colour distortion off",
        at_most=10,
        limit_reason="the papers use up to 1",
    )
    brightness: str = _VIEWS.setting(
        "multiplicative",
        "How jitter changes brightness: multiplied by a factor, as in SimCLRv2's code, or added, "
        "as in SimCLR's.",
        choices=("multiplicative", "additive"),
    )
    jitter_order: str = _VIEWS.setting(
        "random",
        "Whether each view draws its own order of the four operations of the jitter.",
        choices=("random", "fixed"),
    )
    randaugment_layers: int = _VIEWS.setting(
        2,
        "Number of RandAugment operations per view.",
        at_least=1,
        reason="it counts operations per view",
        at_most=16,
        limit_reason="the papers use up to 3",
    )
    randaugment_level: float = _VIEWS.setting(
        10.0, "Strength of RandAugment operations, from 0 to 10.", at_least=0, at_most=10
    )
