"""Builds the arguments of data/ and models/ from a Config: augmentation policy, architecture."""

from __future__ import annotations

from simclr_tf import config as config_lib
from simclr_tf import pixel_format
from simclr_tf.data import operation_names, policies
from simclr_tf.models import keras_encoders, resnet, simclr


def policy_of(
    config: config_lib.Config, pixels: pixel_format.PixelFormat = pixel_format.RGB
) -> policies.Policy:
    """Returns the augmentation policy of a run.

    Args:
        config: the settings.
        pixels: the pixels of its images.

    Raises:
        ArgumentError: if an operation needs channels that they do not have.
    """
    off = [op for op, name in operation_names.SWITCHES.items() if not getattr(config, name)]
    policy = policies.Policy(
        config.image_size,
        ops=operation_names.for_channels(config.augmentation_for(pixels.channels), pixels.channels),
        crop_area=(config.crop_area_min, 1.0),
        color_jitter_strength=config.color_jitter_strength,
        additive_brightness=config.brightness == "additive",
        random_jitter_order=config.jitter_order == "random",
        randaugment_layers=config.randaugment_layers,
        randaugment_level=config.randaugment_level,
        branches=config.augmentation_branches,
        pixels=pixels,
    )
    return policy.without(*off)


def architecture_of(
    config: config_lib.Config,
    class_names: tuple[str, ...] | None,
    pixels: pixel_format.PixelFormat = pixel_format.RGB,
) -> simclr.Architecture:
    """Returns the architecture of a run, with a linear head for these classes if there are any."""
    chosen = {name: getattr(config, name) for name in simclr.ARCHITECTURE_SETTINGS}
    chosen["stem"] = config.resolved_stem
    if config.encoder != keras_encoders.RESNET:
        # The depth has no effect, so two runs may differ in it and have one architecture.
        chosen["resnet_depth"] = config_lib.Config.resnet_depth
    return simclr.Architecture(**chosen, class_names=class_names, pixels=pixels)


def check_encoder(config: config_lib.Config) -> None:
    """Refuses an encoder that does not exist.

    Raises:
        ArgumentError: with the encoders that exist.
    """
    keras_encoders.check(config.encoder)
    if config.encoder == keras_encoders.RESNET:
        resnet.check_depth(config.resnet_depth)
