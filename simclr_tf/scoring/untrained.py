"""The baseline of the untrained encoder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from simclr_tf import console
from simclr_tf.evaluation import forward, in_memory, several_labels
from simclr_tf.models import simclr
from simclr_tf.runs import opening
from simclr_tf.scoring import extraction, label_repeats, linear_fits
from simclr_tf.scoring import groups as groups_lib

# What is extracted, for the progress -> features of the training and of the evaluation split.
_Extract = Callable[[str], tuple[np.ndarray, np.ndarray]]


def score(
    run: opening.Run,
    pixels: tuple[np.ndarray, np.ndarray],
    labels: tuple[np.ndarray, np.ndarray],
    groups: groups_lib.OfSplits = groups_lib.NONE,
) -> dict[str, Any]:
    """Evaluates the untrained encoder, with the better of two initialisations as the baseline.

    A ResNet whose residual branches end with a gamma of zero, as training initialises it, is
    initially little more than its stem. With unit gammas it may be a stronger baseline or a weaker
    one, so both are evaluated. The choice reads the labels of the evaluation split, which can only
    favour the baseline, and never the trained encoder.

    Args:
        run: the run.
        pixels: those of the training and of the evaluation split, see `features.Extracted`.
        labels: those of the training and of the evaluation split.
        groups: the groups of both.

    Returns:
        The scores as "baseline/random_encoder/...". If there are two initialisations, the better
        one has these names, "baseline/random_encoder/initialization" names it, and both have names
        of their own, "baseline/random_encoder/zero_gammas/..." and ".../unit_gammas/...".
    """
    baseline, model = "baseline/random_encoder", run.new_model()
    whole = model.architecture.image_size <= forward.MAX_PIXEL_SIDE
    extract = _of_pixels(run, model, pixels) if whole else _of_files(run, model)

    def score_of(name: str, what: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        linear_fits.evaluate(run, name, *extract(what), labels, found, groups=groups)
        return found

    if not model.has_zero_gammas:
        return score_of(baseline, "features of the untrained encoder")
    result = score_of(f"{baseline}/zero_gammas", "features of the untrained encoder")
    model.set_unit_gammas()
    result |= score_of(f"{baseline}/unit_gammas", "features with unit gammas")
    # On a tie it is the initialisation of training, which comes first.
    names = ("zero_gammas", "unit_gammas")
    measure = several_labels.MEAN_PRECISION if labels[1].ndim > 1 else "top_1_accuracy"
    best = max(names, key=lambda name: result.get(f"{baseline}/{name}/{measure}", 0.0))
    prefix = f"{baseline}/{best}/"
    chosen = {
        f"{baseline}/{name.removeprefix(prefix)}": value
        for name, value in result.items()
        if name.startswith(prefix)
    }
    return {**chosen, f"{baseline}/initialization": best, **result}


def _of_pixels(
    run: opening.Run, model: simclr.SimCLR, pixels: tuple[np.ndarray, np.ndarray]
) -> _Extract:
    """Returns how to extract features of both splits from pixels that are those of whole images."""
    batch_size = min(run.config.eval_batch_size, max(map(len, pixels)))
    network = in_memory.Network(model, batch_size=batch_size, strategy=run.strategy)
    side = model.architecture.image_size
    shape = (-1, side, side, model.architecture.pixels.channels)

    def extract(what: str) -> tuple[np.ndarray, np.ndarray]:
        found = []
        for split, rows in zip((run.data.train_split, run.data.eval_split), pixels):
            with console.Progress(f"{what} of {split}", len(rows)) as progress:
                images = rows.reshape(shape)
                found.append(network(images, progress=progress.update).features)
        return found[0], found[1]

    return extract


def _of_files(run: opening.Run, model: simclr.SimCLR) -> _Extract:
    """Returns how to extract features of both splits from the files of the images."""
    network = forward.Forward(model, run.strategy)

    def extract(what: str) -> tuple[np.ndarray, np.ndarray]:
        train, test = (
            extraction.extract(run, network, split, what=what)
            for split in (run.data.train_split, run.data.eval_split)
        )
        return label_repeats.of_draw(run, train, 0).features, test.features

    return extract
