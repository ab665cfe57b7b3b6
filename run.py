"""The program: parses the command line, sets up devices, and calls one verb."""

from __future__ import annotations

from collections.abc import Sequence
import os
import sys
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's notes to its developers.
# Faster convolutions on every x86 processor; TensorFlow alone picks them for some only.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

from absl import logging

from flags import command_line
from flags import help as help_lib
from simclr_tf import config as config_lib
from simclr_tf import errors


def main(argv: Sequence[str]) -> int:
    """Runs the program and returns its exit code: 0, or 2 for what the person can mend."""
    if any(argument in ("--help", "-h", "--helpfull", "-help") for argument in argv[1:]):
        print(help_lib.usage())
        return 0
    try:
        _run(argv)
    except errors.UserError as error:
        print(f"error: {' '.join(_message(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    return 0


# Arguments of functions in simclr_tf/ whose names are not those of the flags that set them.
_FLAG_OF_ARGUMENT = {
    "branches": "augmentation_branches",
    "crop_area": "crop_area_min",
    "depth": "resnet_depth",
}


def _message(error: errors.UserError) -> str:
    """Returns what to print of an error, with flags in place of arguments of functions."""
    if not isinstance(error, errors.ArgumentError):
        return str(error)
    flag = _FLAG_OF_ARGUMENT.get(error.argument, error.argument)
    given = "" if error.value is None else f"={error.value}"
    return f"--{flag}{given} {error.problem}"


def _run(argv: Sequence[str]) -> None:
    command = command_line.parse(argv)
    config = command.config
    config_lib.validate(config)
    # TensorFlow is imported here, so that a slip of the pen is told at once.
    import tensorflow as tf

    from simclr_tf import console, distribute
    from simclr_tf.commands import check_data, convert, evaluate, export, show_views, train
    from simclr_tf.runs import compatibility, opening

    logging.set_verbosity(logging.ERROR)  # Deprecations inside libraries help no user of ours.
    tf.get_logger().setLevel("ERROR")
    for note in command.notes:
        console.say(note)
    for warning in command.warnings:
        console.warn(warning)
    verbs = {
        "check_data": check_data.check_data,
        "show_views": show_views.show_views,
        "export": lambda config: export.export(config, command.weights),
        "convert": lambda config: convert.convert(config, command.weights, command.explicit),
    }
    if config.mode in verbs:  # They need neither replicas nor an open run.
        _compile_once_unheard(tf)
        verbs[config.mode](config)
        return
    strategy = distribute.make_strategy(
        use_tpu=config.use_tpu,
        tpu_name=config.tpu_name or config.master,
        tpu_zone=config.tpu_zone,
        gcp_project=config.gcp_project,
        num_virtual_cpus=config.num_virtual_cpus,
    )
    _compile_once_unheard(tf)  # Not before: devices are set up at their first use.
    if config.mode != "eval":
        compatibility.check_fine_tuning_start(config, command.requested_mode)
    run = opening.open_run(
        config, strategy, command.weights, eval_split_given="eval_split" in command.explicit
    )
    if config.mode == "eval":
        evaluate.evaluate(run)
        return
    model = train.train(run)
    if config.mode == "train_then_eval":
        evaluate.evaluate(run, model, baselines=True)


def _compile_once_unheard(tf: Any) -> None:
    """Lets XLA say what it says at its first use only, to nobody."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        try:
            with tf.device("/cpu:0"):
                tf.function(lambda: tf.zeros([2]) + 1.0, jit_compile=True)()
        finally:
            os.dup2(kept, 2)
            os.close(kept)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
