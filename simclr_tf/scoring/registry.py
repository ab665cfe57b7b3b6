"""The evaluations of --evaluations that run the network again, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from simclr_tf import console, errors, pixel_format
from simclr_tf.config import other_images as other_image_settings
from simclr_tf.evaluation import outcome
from simclr_tf.runs import opening
from simclr_tf.scoring import network, ood, probes, projection, robustness, shifts

EVALUATIONS: Mapping[str, Callable[[network.Context], outcome.Outcome]] = {
    "probes": probes.measure,
    projection.NAME: projection.evaluate,
    "robustness": robustness.evaluate,
    "shifts": shifts.evaluate,
    "ood": ood.evaluate,
}
# Open what an evaluation needs, so that it is refused before the network is trained.
_CHECKS: Mapping[str, Callable[[opening.Run], None]] = {
    "robustness": robustness.check,
    "shifts": shifts.check,
    "ood": ood.check,
}


# Evaluations that change images as only pictures can be changed, and what they need.
_NEED_RGB, _NEED_COLOUR = "robustness", "probes"


def _why_unsuited(name: str, pixels: pixel_format.PixelFormat) -> str | None:
    """Returns why an evaluation is not for such images; None if it is."""
    if name == _NEED_RGB and not pixels.is_rgb:
        return f"it corrupts 8-bit RGB images, and these have {pixels.described()}"
    if name == _NEED_COLOUR and not pixels.has_colour:
        return f"it turns colours grey, and these images have {pixels.described()}"
    return None


def check(run: opening.Run) -> None:
    """Refuses evaluations whose images or results cannot be opened.

    Reports which are left out of --evaluations=all, and which settings have no effect.

    Raises:
        UserError: with the remedy.
    """
    for sentence in other_image_settings.without_effect(run.config):
        console.warn(sentence)
    if run.data.source.class_names is None:
        return  # They read labels, so none of them is run.
    if run.data.source.several_labels:
        return  # They are for one label, see `scoring.several_labels`.
    for name in run.config.evaluation_names:
        unsuited = _why_unsuited(name, run.architecture.pixels)
        if unsuited is not None and run.config.evaluations != "all":
            raise errors.UserError(
                f"--evaluations={run.config.evaluations} asks for {name}, but {unsuited}; leave it "
                "out."
            )
        if unsuited is not None:
            console.say(f"Left out of --evaluations=all: {name}, because {unsuited}.")
            continue
        if name not in _CHECKS:
            continue
        reason = other_image_settings.why_left_out(run.config, name)
        if reason is None:
            _CHECKS[name](run)
        else:
            console.say(f"Left out of --evaluations=all: {name}, because {reason}.")


def run(name: str, context: network.Context) -> outcome.Outcome | None:
    """Runs one of these evaluations; None if it is left out, see `check`."""
    if other_image_settings.why_left_out(context.run.config, name) is not None:
        return None
    if _why_unsuited(name, context.run.architecture.pixels) is not None:
        return None
    return EVALUATIONS[name](context)
