"""Checks of the evaluations that need images of their own, before TensorFlow is imported."""

from __future__ import annotations

from simclr_tf import errors, paths, text
from simclr_tf.config.settings import Config
from simclr_tf.data import corruption_names as known

# The settings that each of these evaluations alone reads.
_SETTINGS = {
    "robustness": (
        *("corruptions", "corruption_severities", "corruption_examples", "corrupted_dataset"),
        "baseline_run",
    ),
    "shifts": ("shift_datasets",),
    "ood": ("ood_datasets",),
}


def why_left_out(config: Config, name: str) -> str | None:
    """Returns what an evaluation lacks, with the remedy, as a clause; None if nothing."""
    if name == "shifts" and not config.shift_names:
        return "no images are named; list data sets with the same classes in --shift_datasets"
    if name == "ood" and not config.ood_names:
        return "no images are named; list data sets of other classes in --ood_datasets"
    if name != "robustness" or config.corrupted_dataset is not None:
        return None
    if config.image_size < known.MIN_SIDE:
        return (
            f"the corruptions are defined for images of at least {known.MIN_SIDE} px, and "
            f"--image_size={config.image_size}; name a prepared data set by --corrupted_dataset"
        )
    if not known.is_installed():
        return (
            f"the package {known.PACKAGE}, the extra [robustness], is not installed; run pip "
            f"install {known.PACKAGE}, or name a prepared data set by --corrupted_dataset"
        )
    return None


def without_effect(config: Config) -> list[str]:
    """Returns a sentence for each setting of an evaluation that is not run.

    They are not refused, because a run stores them, and may be evaluated in another way later.
    """
    return [
        f"--{name}={getattr(config, name)} has no effect without --evaluations={evaluation} (the "
        f"evaluations are {config.evaluations})."
        for evaluation, names in _SETTINGS.items()
        for name in names
        if evaluation not in config.evaluation_names
        and getattr(config, name) != getattr(Config, name)
    ]


def check(config: Config) -> None:
    """Refuses evaluations that are named and lack something.

    Raises:
        UserError: for the first of them.
    """
    _ = (config.corruption_names, config.severities)  # Raise for what they do not know.
    _check_names(config)
    if config.evaluations == "all":
        return  # What lacks something is left out.
    for evaluation in _SETTINGS:
        reason = why_left_out(config, evaluation)
        if evaluation in config.evaluation_names and reason is not None:
            raise errors.UserError(
                f"--evaluations={config.evaluations} asks for {evaluation}, but {reason}."
            )


def _check_names(config: Config) -> None:
    """Refuses data sets that are named twice, and the run's own as images of other classes."""
    own = (config.dataset, config.data_dir and paths.absolute(config.data_dir).rstrip("/"))
    for flag in ("shift_datasets", "ood_datasets"):
        names = text.listed(getattr(config, flag))
        same = [paths.absolute(name).rstrip("/") if "/" in name else name for name in names]
        for name, one in zip(names, same, strict=True):
            if same.count(one) > 1:
                raise errors.UserError(f"--{flag} names {name} more than once; name it once.")
            if flag == "ood_datasets" and one in own:
                raise errors.UserError(
                    f"--{flag} names {name}, which is the data set of the run; name data sets with "
                    "images of other classes."
                )
