"""The defaults of fine-tuning, where they differ from those of pretraining."""

from __future__ import annotations

from absl import flags

from simclr_tf import config as config_lib
from simclr_tf.config import flagfile

FLAGS = flags.FLAGS
DEFAULTS = config_lib.Config.fine_tuning_defaults()


def defaults() -> list[str]:
    """Returns the flags that set the defaults of fine-tuning; none for any other command.

    A run of an older version, which had the defaults of pretraining, is resumed with those.
    """
    mode, train_mode = config_lib.SHORT_MODES.get(FLAGS.mode, (FLAGS.mode, FLAGS.train_mode))
    if mode not in ("train", "train_then_eval") or train_mode != "finetune":
        return []
    stored = stored_config()
    return [
        flagfile.to_flag(name, value)
        for name, value in DEFAULTS.items()
        if stored is None or getattr(stored, name) != getattr(config_lib.Config, name)
    ]


def stored_config() -> config_lib.Config | None:
    """Returns the settings of the run in --model_dir that would be resumed, if there is one."""
    if FLAGS.model_dir is None:
        return None
    from simclr_tf.runs import checkpoints, directory  # Import TensorFlow: not before it is needed.

    resumes = checkpoints.latest(FLAGS.model_dir) is not None
    return directory.read_config(FLAGS.model_dir) if resumes else None
