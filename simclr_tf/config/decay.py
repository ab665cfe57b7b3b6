"""How a learning rate may fall after warm-up: names, and what a person must say of each."""

from __future__ import annotations

import itertools
import math

from simclr_tf import errors

DECAYS = ("cosine", "exponential", "step")
# What --decay_epochs is good for, as the end of a sentence.
_WANTED = {
    "exponential": "one number, the epochs between two falls, as in --decay_epochs=2.4",
    "step": "the epochs at which it falls, in their order, as in --decay_epochs=60,75,90",
}


def parse(decay: str, decay_epochs: str | None, decay_factor: float) -> tuple[float, ...]:
    """Returns the epochs that --decay_epochs names, and checks that they fit the decay.

    Args:
        decay: one of DECAYS. "cosine" reads none.
        decay_epochs: numbers with commas; exactly one for "exponential". An empty text says none,
            as None does: it takes back what a flagfile says.
        decay_factor: what the rate is multiplied by each time.

    Raises:
        UserError: for what is no number, missing or too much, or a factor that is no fall.
    """
    if decay == "cosine":
        return ()
    if not 0 < decay_factor < 1:
        raise errors.UserError(
            f"--decay_factor must be between 0 and 1, both excluded, got {decay_factor}: the rate "
            "is multiplied by it each time."
        )
    epochs = _numbers(decay_epochs)
    rising = all(low < high for low, high in itertools.pairwise((0.0, *epochs)))
    if not epochs or not rising or (decay == "exponential" and len(epochs) > 1):
        got = "it is missing" if not decay_epochs else f"got {decay_epochs!r}"
        raise errors.UserError(
            f"--learning_rate_decay={decay} needs --decay_epochs, {_WANTED[decay]}; {got}."
        )
    return epochs


def _numbers(text: str | None) -> tuple[float, ...]:
    """Returns the numbers of a list with commas; none if one of them is no number."""
    try:
        numbers = tuple(float(part) for part in (text or "").split(","))
    except ValueError:
        return ()
    return numbers if all(map(math.isfinite, numbers)) else ()
