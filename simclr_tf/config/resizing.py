"""Progressive resizing: the sizes of the views in the course of training."""

from __future__ import annotations

from collections.abc import Sequence
import itertools
import re
from typing import NamedTuple

from simclr_tf import errors

# As --image_size.
SMALLEST = 8
_OFF = "give --progressive_resizing= to train with one size, if a flagfile sets it"


class Part(NamedTuple):
    """A part of the training.

    Attributes:
        size: side of its views, in pixels.
        share: of the steps, between 0 and 1.
    """

    size: int
    share: float


class Phase(NamedTuple):
    """Steps whose views have one size.

    Attributes:
        size: side of the views, in pixels.
        end: the step after the last one, counted from 0.
    """

    size: int
    end: int


def parse(text: str | None, image_size: int) -> tuple[Part, ...]:
    """Returns the parts of the training, of which the last has views of `image_size`.

    Args:
        text: --progressive_resizing, as in "96:30%,128:40%"; None for one part.
        image_size: --image_size.

    Raises:
        UserError: if the text is malformed, the sizes are not ascending, or no share is left for
            `image_size`.
    """
    if text is None:
        return (Part(image_size, 1.0),)
    parts = [_part(text, one) for one in text.split(",")]
    sizes = [SMALLEST - 1, *(part.size for part in parts), image_size]
    if not all(low < high for low, high in itertools.pairwise(sizes)):
        raise errors.UserError(
            f"--progressive_resizing={text} must have sizes of at least {SMALLEST} px that "
            f"ascend and are below --image_size={image_size}, with which training ends; {_OFF}."
        )
    left = 1 - sum(part.share for part in parts)
    if left < 1e-9:
        raise errors.UserError(
            f"--progressive_resizing={text} leaves no training at --image_size={image_size}, at "
            "which the network is evaluated; let the shares be less than 100% in all."
        )
    return (*parts, Part(image_size, left))


def _part(text: str, part: str) -> Part:
    found = re.fullmatch(r" *([0-9]{1,6}):([0-9]{1,3}(?:\.[0-9]+)?)% *", part)
    if found is None or not float(found[2]):
        why = "" if found is None else ", whose share is 0"
        raise errors.UserError(
            f"--progressive_resizing={text} must be SIZE:SHARE% or several of them, separated by "
            f"commas, as in --progressive_resizing=96:30%,128:40%; got {part!r}{why}."
        )
    return Part(int(found[1]), float(found[2]) / 100)


def phases(parts: Sequence[Part], total_steps: int) -> list[Phase]:
    """Returns the phases of a training of some steps, one for each part.

    Raises:
        UserError: if a part has no step.
    """
    found, share, start = [], 0.0, 0
    for part in parts[:-1]:
        share += part.share
        found.append(Phase(part.size, round(share * total_steps)))
    found.append(Phase(parts[-1].size, total_steps))
    for phase in found if total_steps else ():
        if phase.end == start:
            raise errors.UserError(
                f"--progressive_resizing has no step with views of {phase.size} px in a training "
                f"of {total_steps:,}; change its shares, or train longer."
            )
        start = phase.end
    return found
