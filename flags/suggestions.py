"""Suggests flags for a name that is not one."""

from __future__ import annotations

import re

from absl import flags

from flags import definitions
from simclr_tf import text

FLAGS = flags.FLAGS
# What flags are called in many other programs.
USUAL_NAMES = {
    "batch_size": "train_batch_size",
    "epochs": "train_epochs",
    "lr": "learning_rate",
    "output_dir": "model_dir",
    "wd": "weight_decay",
    "workdir": "model_dir",
}


def suggestion(name: str) -> str:
    """Returns " (did you mean ...?)" with the flags that an unknown one resembles, or ""."""
    if name in USUAL_NAMES:
        return f" (did you mean --{USUAL_NAMES[name]}?)"
    own = [field.name for field in definitions.FIELDS]
    known = [*own, "flagfile"]
    if name.startswith("no"):
        known += [f"no{one}" for one in own if FLAGS[one].boolean]
    for one in known:  # As in --train-epochs and --no_use_blur.
        if one.replace("_", "") == re.sub("[-_]", "", name):
            return f" (did you mean --{one}?)"
    return text.suggestion(f"--{name}", [f"--{one}" for one in known])
