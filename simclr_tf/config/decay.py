"""How the learning rate falls after warm-up."""

from __future__ import annotations

import dataclasses
import itertools
import math

from simclr_tf import errors

KINDS = ("cosine", "exponential", "step")
# What --decay_epochs must hold, as the end of a sentence.
_EXPECTED = {
    "exponential": "one number, the epochs between two decays, as in --decay_epochs=2.4",
    "step": "the epochs at which it decays, in ascending order, as in --decay_epochs=60,75,90",
}


@dataclasses.dataclass(frozen=True)
class Decay:
    """A decay of the learning rate.

    Attributes:
        kind: one of KINDS; a cosine needs nothing else.
        factor: what the rate is multiplied by at each decay, between 0 and 1.
        interval: epochs between two decays after warm-up, of an exponential decay.
        epochs: the epochs of the decays of a step decay, counted from the start of training.
    """

    kind: str
    factor: float = 1.0
    interval: float | None = None
    epochs: tuple[float, ...] = ()


def parse(kind: str, decay_epochs: str | None, factor: float) -> Decay:
    """Returns the decay that three settings describe.

    Args:
        kind: --learning_rate_decay, one of KINDS.
        decay_epochs: --decay_epochs, comma-separated numbers.
        factor: --decay_factor.

    Raises:
        UserError: if the epochs are missing, too many, not numbers or not in ascending order, or
            if the factor is not between 0 and 1.
    """
    if kind == "cosine":
        return Decay(kind)
    if not 0 < factor < 1:
        raise errors.UserError(
            f"--decay_factor must be between 0 and 1, both excluded, got {factor}: the learning "
            "rate is multiplied by it at each decay."
        )
    epochs = _numbers(decay_epochs)
    ascending = all(low < high for low, high in itertools.pairwise((0.0, *epochs)))
    if not epochs or not ascending or (kind == "exponential" and len(epochs) > 1):
        got = "it is missing" if decay_epochs is None else f"got {decay_epochs!r}"
        raise errors.UserError(
            f"--learning_rate_decay={kind} needs --decay_epochs, {_EXPECTED[kind]}; {got}."
        )
    if kind == "exponential":
        return Decay(kind, factor, interval=epochs[0])
    return Decay(kind, factor, epochs=epochs)


def _numbers(text: str | None) -> tuple[float, ...]:
    """Returns comma-separated numbers; an empty tuple if any of them is not a finite number."""
    try:
        numbers = tuple(float(number) for number in (text or "").split(","))
    except ValueError:
        return ()
    return numbers if all(map(math.isfinite, numbers)) else ()
