"""Names of image operations and of policies, and constants that settings need.

Does not import TensorFlow, so that settings can be checked without it.
"""

from __future__ import annotations

from simclr_tf import errors, text

CROP = "crop"
# What a crop is called that is not the first operation, and crops views of one size.
LATER_CROP = "later_crop"
# Whether operations change both views of an image, or only the first.
BRANCHES = ("both", "one")
# At or below this side, images keep their resolution: 3x3 stem, no centre crop in evaluation.
SMALL_IMAGE = 32
# What each operation does, for help texts and captions. Their order decides their seeds: add new
# ones at the end.
OPERATIONS = {
    "flip": "mirrors half of the views",
    "color_jitter": "brightness, contrast, saturation and hue, 0.8 of the views",
    "color_drop": "grey, 0.2 of the views",
    "blur": "Gaussian blur, half of the views",
    "rotate": "by 0, 90, 180 or 270 degrees",
    "cutout": "covers a square of half the side",
    "noise": "Gaussian noise of deviation up to 0.2",
    "sobel": "edges only",
    "solarize": "inverts values above a half, 0.2 of the views",
    "equalize": "equalizes the histogram, 0.2 of the views",
    "posterize": "keeps four bits, 0.2 of the views",
    "warp": "bends half of the views",
    "autoaugment": "AutoAugment's policy for ImageNet",
    "autoaugment_cifar10": "AutoAugment's policy for CIFAR-10",
    "randaugment": "RandAugment",
    LATER_CROP: "random crop after other operations, then resized",
    "flip_vertical": "mirrors half of the views top to bottom",
    "brightness": "brightness of all channels alike, 0.8 of the views",
    "contrast": "contrast of all channels alike, 0.8 of the views",
    "channel_brightness": "brightness of each channel by itself, 0.8 of the views",
    "channel_drop": "sets a fifth of the channels to 0, at least one stays, half of the views",
}
# The setting that leaves an operation out of a policy.
SWITCHES = {
    CROP: "use_crop",
    LATER_CROP: "use_crop",
    "flip": "use_flip",
    "color_jitter": "use_color_jitter",
    "color_drop": "use_color_drop",
    "blur": "use_blur",
}
POLICIES = {
    "simclr": (CROP, "flip", "color_jitter", "color_drop", "blur"),
    "supervised": (CROP, "flip"),
    "autoaugment": (CROP, "flip", "autoaugment"),
    "autoaugment_cifar10": (CROP, "flip", "autoaugment_cifar10"),
    "randaugment": (CROP, "flip", "randaugment"),
    "simaugment": (CROP, "flip", "color_jitter", "color_drop", "warp", "blur"),
    "stacked_randaugment": (
        *(CROP, "flip", "color_jitter", "randaugment", "color_drop", "warp", "blur"),
    ),
    "simclr_grey": (CROP, "flip", "brightness", "contrast", "blur"),
    "simclr_multispectral": (
        *(CROP, "flip", "channel_brightness", "contrast", "channel_drop", "blur"),
    ),
    "simclr_microscopy": (
        *(CROP, "flip", "flip_vertical", "rotate", "channel_brightness", "contrast"),
        *("channel_drop", "noise", "blur"),
    ),
}
# What needs red, green and blue, and what needs several channels; all else takes any.
NEED_COLOUR = frozenset(
    {"color_jitter", "color_drop", "autoaugment", "autoaugment_cifar10", "randaugment"}
)
NEED_SEVERAL = frozenset({"channel_drop"})
# Figure 5 of SimCLR has one name for both.
_GROUPS = {"color": ("color_jitter", "color_drop")}


def parse(augmentation: str) -> tuple[str, ...]:
    """Returns the operations of a policy or of a list of names.

    A crop that is not first is LATER_CROP; images are then resized before the first operation.

    Args:
        augmentation: one of POLICIES, or names separated by commas: "crop", those of OPERATIONS, or
            "color" for color_jitter and color_drop.

    Raises:
        errors.ArgumentError: if a name is unknown or repeated.
    """
    if augmentation in POLICIES:
        return POLICIES[augmentation]
    ops: list[str] = []
    for name in (name.strip() for name in augmentation.split(",")):
        if name != CROP and name not in OPERATIONS and name not in _GROUPS:
            raise _unknown(augmentation, name)
        ops += _GROUPS.get(name, (name,))
    for name in ops:
        if ops.count(name) > 1:
            raise errors.ArgumentError(
                "augmentation", augmentation, f"names {name} twice; name each operation once."
            )
    return tuple(LATER_CROP if name == CROP and i else name for i, name in enumerate(ops))


def for_channels(augmentation: str, channels: int) -> tuple[str, ...]:
    """Returns the operations of a policy or of a list of names, which must suit the channels.

    Args:
        augmentation: as for `parse`.
        channels: number of channels of the images.

    Raises:
        errors.ArgumentError: naming the operations that do not, and a policy that does.
    """
    operations = parse(augmentation)
    unsuited = [name for name in operations if not suits(name, channels)]
    if not unsuited:
        return operations
    needs = "several channels" if set(unsuited).isdisjoint(NEED_COLOUR) else "red, green and blue"
    verb = "needs" if len(unsuited) == 1 else "need"
    left = [CROP if name == LATER_CROP else name for name in operations if name not in unsuited]
    listed = f", or its other operations (--augmentation={','.join(left)})" if left else ""
    raise errors.ArgumentError(
        "augmentation",
        augmentation,
        f"has {' and '.join(unsuited)}, which {verb} {needs}, and the images have "
        f"{text.count(channels, 'channel')}; use --augmentation={fitting(channels)}{listed}.",
    )


def fitting(channels: int) -> str:
    """Returns the policy of pretraining for images of a number of channels."""
    if channels == 1:
        return "simclr_grey"
    return "simclr" if channels == 3 else "simclr_multispectral"


def suits(name: str, channels: int) -> bool:
    """Returns whether an operation can change images of a number of channels."""
    if name in NEED_COLOUR:
        return channels == 3
    return channels > 1 or name not in NEED_SEVERAL


def _unknown(augmentation: str, name: str) -> errors.ArgumentError:
    operations = (CROP, *OPERATIONS, *_GROUPS)
    return errors.ArgumentError(
        "augmentation",
        augmentation,
        f"names {name!r}, which is not an operation"
        f"{text.suggestion(name, (*operations, *POLICIES))}; give a policy "
        f"({', '.join(POLICIES)}) or operations in their order, separated by commas "
        f"({', '.join(operations)}).",
    )
