"""In what the layers of a network compute on this machine: what --mixed_precision means here."""

from __future__ import annotations

import dataclasses
import os

import tensorflow as tf

from simclr_tf import console
from simclr_tf.runs import machine

AUTO, FLOAT32, BFLOAT16 = "auto", "none", "bfloat16"  # Values of --mixed_precision.


@dataclasses.dataclass(frozen=True)
class Arithmetic:
    """In what the layers of a network compute.

    Attributes:
        mixed_precision: as --mixed_precision, but never "auto".
        reason: why "auto" means that here; None if it was given.
    """

    mixed_precision: str
    reason: str | None = None

    @property
    def name(self) -> str:
        """The type of the numbers, such as float32."""
        return "float32" if self.mixed_precision == FLOAT32 else self.mixed_precision

    def __str__(self) -> str:
        """Describes it to the user."""
        mixed = "" if self.mixed_precision == FLOAT32 else "mixed "
        return f"{mixed}{self.name}" + (f" (auto: {self.reason})" if self.reason else "")


def choose(mixed_precision: str, strategy: tf.distribute.Strategy) -> Arithmetic:
    """Returns the arithmetic that a setting means on the devices of this process.

    "auto" is bfloat16 if all of them multiply in it, and float32 if one does not, or if that is
    unknown.

    Args:
        mixed_precision: the value of --mixed_precision.
        strategy: the strategy that runs on the replicas.
    """
    if mixed_precision != AUTO:
        return Arithmetic(mixed_precision)
    fast, why = support(strategy)
    return Arithmetic(BFLOAT16 if fast else FLOAT32, why)


def support(strategy: tf.distribute.Strategy) -> machine.Bfloat16:
    """Returns whether the devices of this process multiply in bfloat16.

    Args:
        strategy: the strategy that runs on the replicas.
    """
    if isinstance(strategy, tf.distribute.TPUStrategy):
        return machine.Bfloat16(True, "TPUs multiply in it")
    names = strategy.extended.worker_devices
    if any(tf.DeviceSpec.from_string(name).device_type == "GPU" for name in names):
        gpus = tf.config.list_physical_devices("GPU")
        details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
        return machine.bfloat16_of_gpus(details)
    return machine.bfloat16_of_processor(machine.instructions(), os.environ)


def warn_if_emulated(mixed_precision: str, strategy: tf.distribute.Strategy) -> None:
    """Warns if bfloat16 was given, and a device does not multiply in it.

    Args:
        mixed_precision: the value of --mixed_precision.
        strategy: the strategy that runs on the replicas.
    """
    if mixed_precision != BFLOAT16:
        return
    fast, why = support(strategy)
    if fast is False:
        console.warn(
            f"--mixed_precision={BFLOAT16} is emulated here and many times slower than float32, "
            f"because {why}; use --mixed_precision=auto or none."
        )
