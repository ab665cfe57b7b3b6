"""The networks of a transfer: an encoder, its random initial weights, and others to compare."""

from __future__ import annotations

import dataclasses
from typing import Any

import tensorflow as tf

from simclr_tf import config as config_lib
from simclr_tf import console, errors, paths, pixel_format
from simclr_tf.data import first_format
from simclr_tf.models import simclr
from simclr_tf.runs import builders, initialization, opening
from simclr_tf.runs import pixels as pixels_lib
from simclr_tf.runs import weights as weights_lib
from simclr_tf.transfer import targets

ENCODER, RANDOM = "encoder", "random"
# Settings that --baselines takes from the weights. The stage of the projection head that a
# classifier reads is not a property of an encoder.
_OF_WEIGHTS = tuple(name for name in simclr.ARCHITECTURE_SETTINGS if name != "ft_proj_selector")


@dataclasses.dataclass(frozen=True)
class Network:
    """A network to transfer.

    Attributes:
        name: as in the table.
        folder: a name for the folder of its cells, which no other network has.
        settings: the settings of the network, by name.
        weights: its weights; None for initial weights.
        pixels: the pixels of the images that it sees.
    """

    name: str
    folder: str
    settings: dict[str, Any]
    weights: weights_lib.Weights | None
    pixels: pixel_format.PixelFormat = pixel_format.RGB

    @property
    def image_size(self) -> int:
        """Side of the images that it sees, in pixels."""
        return int(self.settings["image_size"])

    @property
    def origin(self) -> str | None:
        """Path of the weights; None for initial weights."""
        return None if self.weights is None else self.weights.origin

    def configure(self, config: config_lib.Config) -> config_lib.Config:
        """Returns settings with those of the network and its weights."""
        # Fine-tuning sees the same pixels as the encoder did.
        channels = first_format.PICTURES if self.pixels.is_rgb else str(self.pixels.channels)
        return dataclasses.replace(
            config, **self.settings, checkpoint=self.origin, channels=channels
        )

    def run_on(
        self, target: targets.Target, strategy: tf.distribute.Strategy, model_dir: str
    ) -> opening.Run:
        """Returns the run that evaluates the network on a data set.

        Args:
            target: the data set.
            strategy: the strategy that runs on the replicas.
            model_dir: the folder for its files.
        """
        config = dataclasses.replace(self.configure(target.config), model_dir=model_dir)
        architecture = builders.architecture_of(config, None, self.pixels)
        data = pixels_lib.applied(target.data, self.pixels)
        return opening.Run(config, data, strategy, architecture, self.weights)

    def load(self, model: simclr.SimCLR) -> None:
        """Fills the encoder of a new network, which keeps its initial weights without others.

        Raises:
            UserError: if the weights do not fit, or are damaged.
        """
        if self.weights is not None:
            initialization.start_from(self.weights, model, zero_init_logits_layer=False)


def open_networks(config: config_lib.Config, weights: weights_lib.Weights) -> list[Network]:
    """Opens the networks of a transfer: the encoder, its initial weights, and --baselines.

    Args:
        config: the settings, with the network of the weights.
        weights: those of --checkpoint.

    Raises:
        UserError: if weights cannot be opened, or do not say which network they are of.
    """
    own = {name: getattr(config, name) for name in simclr.ARCHITECTURE_SETTINGS}
    pixels = pixels_lib.of_weights(weights)
    found = [
        Network(ENCODER, ENCODER, own, weights, pixels),
        Network("random initial weights", RANDOM, own, None, pixels),
    ]
    given = config.baseline_names
    for name, folder in zip(given, targets.unique_folders(given), strict=True):
        found.append(_baseline(config, name, folder))
    sizes = {network.image_size for network in found}
    if len(sizes) > 1:
        listed = ", ".join(f"{one.name} {one.image_size} px" for one in found)
        console.say(f"Each network sees images of its own size: {listed}.")
    return found


def _baseline(config: config_lib.Config, name: str, folder: str) -> Network:
    opened = weights_lib.open_weights(paths.absolute(name), flag="baselines")
    architecture = opened.architecture
    if architecture is None:
        raise errors.UserError(
            f"--baselines={name} does not say which network its checkpoints fit (no "
            "architecture.json); restore that file."
        )
    settings: dict[str, Any] = {
        **{one: getattr(architecture, one) for one in _OF_WEIGHTS},
        "ft_proj_selector": config_lib.Config.ft_proj_selector,
    }
    if folder in (ENCODER, RANDOM):
        folder = f"{folder}_baseline"
    return Network(folder, folder, settings, opened, architecture.pixels)
