"""How long a run is: its steps, and the images that it does not train on."""

from __future__ import annotations

from simclr_tf import config as config_lib

# Chosen if --validation_examples is 0: this fraction of the training images, but not more images.
_FRACTION, _MOST = 0.1, 2000


def total_steps(config: config_lib.Config, num_examples: int) -> int:
    """Returns the number of steps of a run, as google-research/simclr counts them.

    Args:
        config: settings of the run.
        num_examples: images to train on.
    """
    if config.train_steps or not config.train_epochs:
        return config.train_steps
    return num_examples * config.train_epochs // config.train_batch_size + 1


def validation_images(config: config_lib.Config, num_examples: int) -> int:
    """Returns how many training images are left out of training; 0 without --eval_epochs.

    Args:
        config: settings of the run.
        num_examples: images in the training split.
    """
    if not config.eval_epochs:
        return 0
    return config.validation_examples or max(2, min(_MOST, int(_FRACTION * num_examples)))
