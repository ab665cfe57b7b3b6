"""The program: parses the command line, sets up devices, and calls one command."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import os
import sys
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # Hides TensorFlow's developer messages.
# Faster convolutions on every x86 processor; TensorFlow alone picks them for some only.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

try:
    import simclr_tf  # noqa: F401
except ImportError as error:  # It imports nothing else, and says what to set or to install.
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)

from flags import command_line, flagfiles
from flags import help as help_lib
from simclr_tf import config as config_lib
from simclr_tf import errors, tensorflow_import, text
from simclr_tf import preemption as preemption_lib


def main(argv: Sequence[str]) -> int:
    """Runs the program and returns its exit code.

    Returns:
        0; 1 if --mode=doctor found a problem; 2 for errors that the user can fix; 130 after Ctrl-C;
        143 after SIGTERM.
    """
    if any(argument in ("--help", "-h", "--helpfull", "-help") for argument in argv[1:]):
        _print_help()
        return 0
    try:
        with preemption_lib.Preemption() as preemption:
            preemption.listen("TERM")
            return _run(argv, preemption)
    except errors.UserError as error:
        message = f"error: {' '.join(_message(error).split())}"
        print(text.limited(message), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "Interrupted. Run the same command again to resume from the last checkpoint.",
            file=sys.stderr,
        )
        return 130
    except preemption_lib.Preempted as end:
        print(end, file=sys.stderr)
        return preemption_lib.EXIT_CODE


def _print_help() -> None:
    try:
        print(help_lib.usage(), flush=True)
    except BrokenPipeError:  # What read the output, such as `head`, has ended.
        # Python writes what is left when it exits, so that must not fail either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


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


def _run(argv: Sequence[str], preemption: preemption_lib.Preemption) -> int:
    """Runs the command and returns its exit code."""
    command = command_line.parse(argv)
    config = command.config
    config_lib.validate(config)
    if config.preemption_signal != "none":
        preemption.listen(config.preemption_signal)
    if config.mode == "runs":  # It reads small files only.
        from simclr_tf.commands import runs

        runs.list_runs(config)
        return 0
    if config.mode == "doctor":  # It runs where TensorFlow cannot be imported.
        return _examine(config)
    _run_with_tensorflow(command, preemption)
    return 0


def _examine(config: config_lib.Config) -> int:
    """Looks for problems of this machine and returns the exit code."""
    try:
        from simclr_tf.commands import doctor
    except ModuleNotFoundError as error:
        raise errors.UserError(
            f"The package {error.name} is not installed; run pip install -r requirements.txt and "
            "the same command again."
        ) from error
    return 0 if doctor.examine(config) else 1


def _run_with_tensorflow(
    command: command_line.Command, preemption: preemption_lib.Preemption
) -> None:
    config = command.config
    # TensorFlow is imported here, so that typos are reported before its slow import.
    tf = tensorflow_import.tensorflow()

    from simclr_tf import console

    tf.get_logger().setLevel("ERROR")  # Deprecations inside libraries do not concern users.
    from simclr_tf.commands import several_workers

    several_workers.silence_others(os.environ)
    for note in command.notes:
        console.say(note)
    for warning in command.warnings:
        console.warn(warning)
    if config.mode in ("train", "train_then_eval", "eval", "replay", "transfer"):
        with several_workers.joined(config, os.environ) as workers:
            command = dataclasses.replace(command, config=workers.config)
            _train_or_evaluate(command, preemption, workers, tf)
        return
    several_workers.check_alone(config.mode, os.environ)
    if config.mode in ("embed", "search", "audit"):
        _use_embeddings(command, tf)
        return
    if config.mode == "report":
        from simclr_tf.commands import report  # Imports Matplotlib, which the others do not need.

        report.report(config)
        return
    if config.mode == "study":
        from simclr_tf.commands import study

        study.study(config, command.explicit, flagfiles.STUDIES, preemption)
        return
    from simclr_tf.commands import check_data, compare, convert, export, show_views

    _silence_first_xla_compile(tf)
    {
        "check_data": lambda: check_data.check_data(config),
        "show_views": lambda: show_views.show_views(config),
        "export": lambda: export.export(config, command.weights),
        "compare": lambda: compare.compare(config),
        "convert": lambda: convert.convert(config, command.weights, command.explicit),
    }[config.mode]()


def _train_or_evaluate(
    command: command_line.Command, preemption: preemption_lib.Preemption, workers: Any, tf: Any
) -> None:
    """Runs the commands that need devices and a run directory."""
    # Each command is imported when it begins, because some take a second.
    from simclr_tf import later_imports
    from simclr_tf.runs import opening

    config = command.config
    strategy = _strategy(config, tf, workers.cluster)
    preemption.listen_again()  # TensorFlow handles SIGTERM itself where workers train together.
    if config.mode == "transfer":
        from simclr_tf.commands import transfer

        transfer.transfer(config, strategy, command.weights, preemption, explicit=command.explicit)
        return
    split_given, batch_given = (
        name in command.explicit for name in ("eval_split", "train_batch_size")
    )
    # Otherwise checked when the batch size is chosen.
    if batch_given or config.mode in ("eval", "replay"):
        opening.check_machine(config, strategy.num_replicas_in_sync)
    if config.mode == "replay":
        from simclr_tf.commands import replay

        replay.replay(config, strategy)
        return
    if config.mode == "eval":
        later_imports.import_now((*later_imports.OF_EVALUATION, *later_imports.OF_REPORT))
        from simclr_tf.commands import evaluate, report

        run = opening.open_run(config, strategy, command.weights, eval_split_given=split_given)
        evaluate.evaluate(opening.prepare_directory(run), workers=workers.connection)
        report.write_after_run(run.model_dir)
        return

    from simclr_tf.commands import train, train_draws
    from simclr_tf.runs import compatibility

    def train_and_evaluate(config: config_lib.Config) -> None:
        compatibility.check_fine_tuning_start(config, command.requested_mode)
        run, model = train.train(
            config,
            strategy,
            command.weights,
            preemption,
            eval_split_given=split_given,
            batch_size_given=batch_given,
            workers=workers.connection,
        )
        from simclr_tf.commands import evaluate, report

        if config.mode == "train_then_eval":
            wanted = config.untrained_baselines and command.requested_mode == "train_then_eval"
            evaluate.evaluate(run, model, baselines=wanted, workers=workers.connection)
        report.write_after_run(run.model_dir)

    if config.label_draws > 1 and config.reads_labels:
        train_draws.train_draws(config, train_and_evaluate, batch_size_given=batch_given)
    else:
        train_and_evaluate(config)


def _use_embeddings(command: command_line.Command, tf: Any) -> None:
    """Runs the commands that write or read --embeddings."""
    from simclr_tf.commands import audit, embed, search

    config = command.config
    strategy = _strategy(config, tf)
    if config.mode == "search":
        search.search(config, command.weights)
        return
    if command.weights is not None:
        embed.embed(config, command.weights, strategy)
    if config.mode == "audit":
        audit.audit(config, command.weights)


def _strategy(config: config_lib.Config, tf: Any, cluster: Any = None) -> Any:
    """Returns the strategy for the machine, a `tf.distribute.Strategy`."""
    from simclr_tf import console, distribute, multi_worker
    from simclr_tf.doctor import gpus
    from simclr_tf.runs import arithmetic

    if config.deterministic:
        distribute.make_deterministic(config.seed)
    if cluster is not None:
        strategy = multi_worker.make_strategy(cluster, num_virtual_cpus=config.num_virtual_cpus)
    else:
        strategy = distribute.make_strategy(
            use_tpu=config.use_tpu,
            tpu_name=config.tpu_name or config.master,
            tpu_zone=config.tpu_zone,
            gcp_project=config.gcp_project,
            num_virtual_cpus=config.num_virtual_cpus,
        )
    _silence_first_xla_compile(tf)  # Not earlier: TensorFlow sets up its devices at first use.
    on_cpu = isinstance(strategy, tf.distribute.OneDeviceStrategy)
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") == "-1"  # By the user.
    unused = gpus.device_files() if on_cpu and not hidden else []
    if unused:
        console.warn(
            f"This machine has an NVIDIA GPU ({text.shortened(unused)}), but TensorFlow sees none "
            "and uses the CPU; python run.py --mode=doctor says why."
        )
    arithmetic.warn_if_emulated(config.mixed_precision, strategy)
    return strategy


def _silence_first_xla_compile(tf: Any) -> None:
    """Compiles something with XLA while stderr is closed.

    XLA writes two lines to stderr at its first use in a process. They come from C++, and no
    setting of TensorFlow hides them.
    """
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
