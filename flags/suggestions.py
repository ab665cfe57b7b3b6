"""Suggests flags for a name that is not one, and what to give instead of a list of seeds."""

from __future__ import annotations

from collections.abc import Sequence
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


def number_of_seeds(seeds: Sequence[str]) -> str:
    """Returns the end of the message for --study_seeds that lists seeds."""
    twice = [seed for seed in seeds if seeds.count(seed) > 1]
    problem = f"gives the seed {twice[0]} twice, and lists" if twice else "lists"
    return (
        f"{problem} seeds instead of their number; give for example --study_seeds="
        f"{len(set(seeds))}, or list seeds in a study file of your own, as seeds = "
        f"[{', '.join(dict.fromkeys(seeds))}]."
    )
