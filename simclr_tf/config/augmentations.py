"""Checks of --augmentation, before TensorFlow is imported."""

from __future__ import annotations

from simclr_tf import errors
from simclr_tf.config.settings import Config
from simclr_tf.data import operation_names


def check(config: Config) -> None:
    """Refuses unknown operations, and a list of which a setting would leave something out.

    Raises:
        UserError: with the remedy.
    """
    if config.augmentation == "auto":
        return
    operations = operation_names.parse(config.augmentation)
    if config.augmentation in operation_names.POLICIES:
        return
    for name in operations:
        switch = operation_names.SWITCHES.get(name)
        if switch is not None and not getattr(config, switch):
            shown = operation_names.CROP if name == operation_names.LATER_CROP else name
            raise errors.UserError(
                f"--augmentation={config.augmentation} names {shown}, which --no{switch} leaves "
                f"out; give --{switch}, or leave it out of the list."
            )
