"""Presets: settings of pretraining for images of one's own, by their number and the device."""

from __future__ import annotations

import dataclasses
import math
import os
from typing import TYPE_CHECKING, Any

from absl import flags

from flags import definitions, fine_tuning, flagfiles
from simclr_tf import cluster, errors, tensorflow_import, text
from simclr_tf import config as config_lib
from simclr_tf.config import flagfile
from simclr_tf.data import label_origin

if TYPE_CHECKING:
    from simclr_tf.runs import weights as weights_lib

FLAGS = flags.FLAGS
FOLDER = flagfiles.RECIPES.parent / "presets"
_SIZES = (500, 5_000, 50_000)  # Numbers of training images.
# Who gives none of these for a folder of images trains for days, with the settings for ImageNet.
_CHOSEN = ("image_size", "resnet_depth", "encoder", "train_epochs", "train_steps", "checkpoint")
_HINT = (
    "These are the settings of the paper for ImageNet. --preset=auto picks settings for your "
    "images, by their number and size."
)
# A flag -> settings that a preset chose to go with its own value of it. Another value that is given
# replaces them, too.
_REPLACED = {
    "train_epochs": ("train_steps",),
    "optimizer": ("learning_rate",),
    "resnet_depth": ("width_multiplier",),
    "encoder": ("resnet_depth", "width_multiplier"),
}
_SMALL_SIDE = 48  # Pixels.


def settings(
    explicit: frozenset[str], weights: weights_lib.Weights | None
) -> tuple[dict[str, Any], list[str]]:
    """Returns the settings of --preset that were not given otherwise, and notes for the user.

    Args:
        explicit: names of the flags that were given, which override a preset.
        weights: the weights of --checkpoint, whose network also overrides a preset; None without.

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
    if name == "auto":
        _check_alone()
    values, title = _pick(explicit) if name == "auto" else (read(name), f"Preset {name}")
    values = _not_given(values, explicit | _names_in(weights))
    shown = " ".join(flagfile.to_flag(name, value) for name, value in values.items())
    # No period follows the flags, so that they can be copied.
    return values, [f"{title}: {shown or 'other flags give all of its settings.'}"]


def _check_alone() -> None:
    """Refuses --preset=auto for several workers, which must connect before images are read."""
    workers = cluster.from_environment(os.environ)
    if workers is not None:
        raise errors.UserError(
            f"--preset=auto works in one process, and {cluster.VARIABLE} names "
            f"{len(workers.addresses)} workers; name a preset "
            f"({', '.join(config_lib.PRESETS[1:])}), or give the flags that "
            "--preset=auto prints on one machine."
        )


def _pick(explicit: frozenset[str]) -> tuple[dict[str, Any], str]:
    """Returns the settings for the images and the device, and the preset that they are of."""
    from simclr_tf import distribute  # Imports TensorFlow.

    config = definitions.to_config()
    config_lib.validate(config)
    # The first operation of TensorFlow, such as one that reads an image, makes this impossible.
    replicas = distribute.configure_devices(config.num_virtual_cpus)
    images, side = _look_at_images(config, explicit)
    device = _device()
    name = nearest(images, device)
    values = read(name)
    if _uses_small_settings(config, side, explicit):
        values |= read(f"small_images_{device}")
    if "train_batch_size" not in explicit:
        config = dataclasses.replace(config, train_batch_size=values["train_batch_size"])
        values["train_batch_size"] = _batch_size(config, images, replicas)
    count = text.count(images, "training image")
    size = f" of about {side} px" if _is_small(side) else ""
    machine = "TPU" if config.use_tpu else device.upper()
    return values, f"Preset {name}, for {count}{size} on a {machine}"


def _is_small(side: int | None) -> bool:
    """Returns whether images are not enlarged to the size of a preset, by their shorter side."""
    return side is not None and side <= _SMALL_SIDE


def _uses_small_settings(
    config: config_lib.Config, side: int | None, explicit: frozenset[str]
) -> bool:
    """Returns whether the settings for small images apply, which suit the stem for small images."""
    return config.resolved_stem == "small" if "image_size" in explicit else _is_small(side)


def _batch_size(config: config_lib.Config, images: int, replicas: int) -> int:
    """Returns the batch size of a preset, or a smaller one that suits the images and the machine.

    Training would choose the same. Shown as a flag, it can be given explicitly, too.
    """
    from simclr_tf.runs import batch_size  # Imports TensorFlow.

    return batch_size.fit(config, images, 1 if config.use_tpu else replicas).train_batch_size


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
            f"--preset={FLAGS.preset} is for pretraining; leave it out, because fine-tuning has "
            "defaults of its own."
        )
    if "dataset" not in explicit:
        raise errors.UserError(
            f"--preset={FLAGS.preset} needs images of your own; add --dataset=image_folder "
            "--data_dir=PATH. The built-in digits have a recipe instead."
        )


def _lacks_settings(explicit: frozenset[str]) -> bool:
    is_folder = FLAGS.dataset == label_origin.IMAGE_FOLDER or FLAGS.dataset.startswith("csv:")
    return is_folder and not explicit & set(_CHOSEN) and fine_tuning.stored_config() is None


def _names_in(weights: weights_lib.Weights | None) -> frozenset[str]:
    """Returns the names of the flags that the weights of --checkpoint decide."""
    if weights is None or weights.architecture is None:
        return frozenset()
    from simclr_tf.models import simclr

    return frozenset(simclr.ARCHITECTURE_SETTINGS)


def _not_given(values: dict[str, Any], explicit: frozenset[str]) -> dict[str, Any]:
    """Returns the values of a preset that suit the flags that were given."""
    own = {"encoder": config_lib.Config.encoder, **values}
    changed = [name for name in explicit if name not in own or FLAGS[name].value != own[name]]
    replaced = {name for given in changed for name in _REPLACED.get(given, ())}
    return {name: value for name, value in values.items() if name not in explicit | replaced}


def _look_at_images(config: config_lib.Config, explicit: frozenset[str]) -> tuple[int, int | None]:
    """Returns the number of images to train on, and their usual shorter side in pixels."""
    tensorflow_import.tensorflow()  # Not before it is needed.
    from simclr_tf.data import first_images
    from simclr_tf.runs import dataset, validation_images

    config = dataclasses.replace(config, cache_dataset=False)  # Training keeps them in memory.
    data = dataset.open_data(config, eval_split_given="eval_split" in explicit)
    count = data.source.num_examples(data.train_split)
    count -= validation_images.count(config, count)
    return count, first_images.usual_side(data.source, data.train_split)


def _device() -> str:
    """Returns which device trains: gpu also stands for a TPU."""
    import tensorflow as tf  # Not before it is needed: its import is slow.

    return "gpu" if FLAGS.use_tpu or tf.config.list_physical_devices("GPU") else "cpu"
