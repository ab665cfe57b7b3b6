"""Presets: settings of pretraining for images of one's own, by their number and the device."""

from __future__ import annotations

import math
from typing import Any

from absl import flags

from flags import definitions, fine_tuning, flagfiles
from simclr_tf import config as config_lib
from simclr_tf import errors, text
from simclr_tf.config import flagfile
from simclr_tf.data import label_origin

FLAGS = flags.FLAGS
FOLDER = flagfiles.RECIPES.parent / "presets"
_SIZES = (500, 5_000, 50_000)  # Numbers of training images.
# Who gives none of these for a folder of images trains for days, with the settings for ImageNet.
_CHOSEN = ("image_size", "resnet_depth", "encoder", "train_epochs", "train_steps", "checkpoint")
_HINT = (
    "These are the settings of the paper for ImageNet. --preset=auto picks settings for your "
    "images, by their number and size."
)
# A flag that was given -> settings that a preset chose to go with its own value of that flag.
_REPLACED = {
    "train_epochs": ("train_steps",),
    "optimizer": ("learning_rate",),
    "resnet_depth": ("width_multiplier",),
    "encoder": ("resnet_depth", "width_multiplier"),
}
_SMALL_SIDE = 48  # Pixels; up to here, images are not enlarged to the size of a preset.


def settings(explicit: frozenset[str]) -> tuple[dict[str, Any], list[str]]:
    """Returns the settings of --preset that were not given otherwise, and notes for the user.

    Args:
        explicit: names of the flags that were given, which override a preset.

    Returns:
        The values by the names of their flags, and sentences; both empty without a preset.

    Raises:
        UserError: if a preset does not suit the command, or if the images of --preset=auto cannot
            be counted.
    """
    name = FLAGS.preset
    mode, train_mode = config_lib.SHORT_MODES.get(FLAGS.mode, (FLAGS.mode, FLAGS.train_mode))
    trains = mode in ("train", "train_then_eval")
    if name == "none" and trains and train_mode == "pretrain" and _lacks_settings(explicit):
        return {}, [_HINT]
    # An unknown preset and another mode are refused when all settings are validated.
    if name not in config_lib.PRESETS or not trains:
        return {}, []
    _check_use(train_mode, explicit)
    stored = fine_tuning.stored_config() if name == "auto" else None
    if stored is not None:
        known = {setting for path in FOLDER.glob("*.flags") for setting in read(path.stem)}
        values = {name: getattr(stored, name) for name in known}
        note = f"Preset: the run in {FLAGS.model_dir} keeps the settings that it was started with."
        return _not_given(values, explicit), [note]
    values, title = _pick(explicit) if name == "auto" else (read(name), f"Preset {name}")
    values = _not_given(values, explicit)
    shown = " ".join(flagfile.to_flag(name, value) for name, value in values.items())
    return values, [f"{title}: {shown}."]


def _pick(explicit: frozenset[str]) -> tuple[dict[str, Any], str]:
    """Returns the settings for the images and the device, and the preset that they are of."""
    images, side = _look_at_images(explicit)
    device = _device()
    name = nearest(images, device)
    values, size = read(name), ""
    if side is not None and side <= _SMALL_SIDE:
        values |= read(f"small_images_{device}")
        size = f" of about {side} px"
    count = text.count(images, "training image")
    return values, f"Preset {name}, for {count}{size} on a {device.upper()}"


def nearest(images: int, device: str) -> str:
    """Returns the preset whose number of images is the nearest by ratio.

    Args:
        images: training images, at least 1.
        device: cpu or gpu.
    """
    size = min(_SIZES, key=lambda size: abs(math.log(images / size)))
    return f"{size}_{device}"


def read(name: str) -> dict[str, Any]:
    """Returns the settings of a preset by their names."""
    path = FOLDER / f"{name}.flags"
    content = path.read_text(encoding="utf-8")
    return flagfile.parse(config_lib.Config, content, origin=str(path))


def _check_use(train_mode: str, explicit: frozenset[str]) -> None:
    """Refuses a preset for what it is not made for."""
    if train_mode != "pretrain":
        raise errors.UserError(
            f"--preset={FLAGS.preset} is for pretraining; leave it out. --train_mode={train_mode} "
            "has defaults of its own."
        )
    if "dataset" not in explicit:
        raise errors.UserError(
            f"--preset={FLAGS.preset} needs images of your own; add --dataset=image_folder "
            "--data_dir=PATH. The embedded digits have a recipe instead."
        )


def _lacks_settings(explicit: frozenset[str]) -> bool:
    is_folder = FLAGS.dataset == label_origin.IMAGE_FOLDER or FLAGS.dataset.startswith("csv:")
    return is_folder and not explicit & set(_CHOSEN) and fine_tuning.stored_config() is None


def _not_given(values: dict[str, Any], explicit: frozenset[str]) -> dict[str, Any]:
    """Returns the values of a preset that suit the flags that were given."""
    replaced = {name for given in explicit for name in _REPLACED.get(given, ())}
    return {name: value for name, value in values.items() if name not in explicit | replaced}


def _look_at_images(explicit: frozenset[str]) -> tuple[int, int | None]:
    """Returns the number of images to train on, and their usual shorter side in pixels."""
    # These import TensorFlow.
    from simclr_tf.data import first_images
    from simclr_tf.runs import dataset, validation_images

    config = definitions.to_config()
    config_lib.validate(config)
    data = dataset.open_data(config, eval_split_given="eval_split" in explicit)
    count = data.source.num_examples(data.train_split)
    count -= validation_images.count(config, count)
    return count, first_images.usual_side(data.source, data.train_split)


def _device() -> str:
    """Returns which device trains: gpu also stands for a TPU."""
    import tensorflow as tf  # Not before it is needed: its import is slow.

    return "gpu" if FLAGS.use_tpu or tf.config.list_physical_devices("GPU") else "cpu"
