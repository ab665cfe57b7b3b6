"""The export command: from a checkpoint to a SavedModel, without data."""

from __future__ import annotations

from simclr_tf import config as config_lib
from simclr_tf import console, errors
from simclr_tf.models import simclr
from simclr_tf.reference import loading
from simclr_tf.runs import builders, directory, weights
from simclr_tf.runs import checkpoints as checkpoints_lib
from simclr_tf.serving import export as serving
from simclr_tf.serving import reference_format


def export(config: config_lib.Config) -> str:
    """Writes a SavedModel of the newest checkpoint of a run, or of the one that is named.

    It goes into --model_dir, or without one into the run directory of --checkpoint. What
    google-research/simclr wrote is read like a run of ours.

    Args:
        config: the settings.

    Returns:
        The folder written.

    Raises:
        UserError: if there is nothing to export, it is damaged, or it cannot be written.
    """
    model, step, model_dir = _read(config)
    directory.prepare(model_dir)
    write = {"serving": serving.export, "official": reference_format.export_reference_model}[
        config.format
    ]
    with console.working("exported the SavedModel"):
        folder = write(model, model_dir, step, keep=config.keep_hub_module_max)
    if config.format == "official" and model.linear_head is None:
        console.warn(
            f"There is no linear head, so {folder} has no logits_sup; google-research/simclr would "
            "not export such a run at all."
        )
    console.say(f"Written: {folder}")
    return folder


def _read(config: config_lib.Config) -> tuple[simclr.SimCLR, int, str]:
    """Returns the network that is to be exported, its step, and the folder to write into."""
    asked = config.checkpoint or config.model_dir
    if asked is None:
        raise errors.UserError(
            "--mode=export has nothing to export; name a run by --model_dir, or a checkpoint by "
            "--checkpoint."
        )
    foreign = weights.find_reference(asked)
    if foreign is None:
        return _read_ours(config, asked)
    if config.checkpoint is None or config.model_dir is None:
        raise errors.UserError(
            f"{asked} is of google-research/simclr; name it by --checkpoint, and a folder of your "
            "own by --model_dir."
        )
    _check_asked(config, foreign.architecture, asked)
    return loading.build(foreign)[0], 0, config.model_dir


def _read_ours(config: config_lib.Config, asked: str) -> tuple[simclr.SimCLR, int, str]:
    flag = "checkpoint" if config.checkpoint is not None else "model_dir"
    origin, found = checkpoints_lib.locate(asked, flag=flag)
    path = checkpoints_lib.newest_whole(found)
    if path is None:
        damage = checkpoints_lib.damage_of(found[-1])
        raise errors.UserError(f"--{flag}={asked} is damaged ({damage}); name another one.")
    stored = directory.read_architecture(origin)
    if stored is None:
        raise errors.UserError(
            f"{origin} does not say which network its checkpoints fit (no architecture.json); "
            "restore that file."
        )
    _check_asked(config, stored, origin)
    model = simclr.SimCLR(stored, seed=0, global_bn=False)
    checkpoints = checkpoints_lib.Checkpoints(origin, model, None)
    checkpoints.restore(path)
    return model, int(checkpoints.step), config.model_dir or origin


def _check_asked(config: config_lib.Config, stored: simclr.Architecture, origin: str) -> None:
    """Refuses settings of the network that are not those of the run."""
    directory.check_same(stored, builders.architecture_of(config, stored.class_names), origin)
