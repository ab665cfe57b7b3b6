"""From argv to a Config.

Precedence: command line > flagfile > stored run > preset or recipe > defaults. Fine-tuning has some
defaults of its own.

What is stored is the flags of the run itself, in evaluation, and the architecture of the run in
--model_dir or of the weights of --checkpoint, in evaluation with the data of their run. A recipe,
that of the embedded data set, is used if no data set is named. A flag that contradicts the weights
of --checkpoint is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import os
from typing import TYPE_CHECKING, Any

from absl import flags, logging

from flags import definitions, fine_tuning, flagfiles, retired, suggestions
from flags import preset as preset_lib
from simclr_tf import config as config_lib
from simclr_tf import errors, paths, tensorflow_import, text
from simclr_tf.config import flagfile

if TYPE_CHECKING:
    from simclr_tf.models import simclr
    from simclr_tf.runs import weights as weights_lib

DEFAULT_RECIPE = flagfiles.RECIPES / "digits.flags"
FLAGS = flags.FLAGS
# What the value of a flag must be, by the type of the flag.
_EXPECTED = {"bool": "true or false", "int": "an integer", "float": "a number"}
# Flags whose paths TensorFlow reads as those of checkpoints.
_CHECKPOINT_PATHS = ("model_dir", "checkpoint", "teacher")
# Modes that keep the network of the weights as it is.
_KEEP_STORED_NETWORK = ("audit", "convert", "embed", "eval", "export", "replay", "search")
# Modes that have the settings of the run in --model_dir.
_RUN_STORED_FLAGS = ("eval", "replay")
# Modes whose data, if they read any, is not that of a recipe.
_WITHOUT_RECIPE = (
    *("audit", "compare", "convert", "embed", "export", "replay", "report", "runs", "search"),
    *("study", "transfer"),
)
# Modes that read --checkpoint whatever --model_dir contains.
_ALWAYS_READ_CHECKPOINT = ("audit", "convert", "embed", "export", "search")
# Modes that read the data of the run of --checkpoint, unless other data is named.
_DATA_OF_CHECKPOINT = ("audit", "embed", "eval")
# Modes that do not read the network in --model_dir.
_WITHOUT_NETWORK_OF_MODEL_DIR = ("audit", "report", "search", "study")


@dataclasses.dataclass(frozen=True)
class Command:
    """What the command line asks for.

    Attributes:
        config: the run.
        requested_mode: --mode as it was given, which may be a short form.
        explicit: names of the flags that were given, on the command line or in a flagfile.
        notes: sentences to print first, about the sources of other settings.
        warnings: sentences about flags that do not do what they did in google-research/simclr.
        weights: the weights of --checkpoint. None without one, and if --model_dir contains a run,
            which resumes from its own weights and no longer needs those that it started from.
    """

    config: config_lib.Config
    requested_mode: str
    explicit: frozenset[str]
    notes: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    weights: weights_lib.Weights | None = None


def parse(argv: Sequence[str]) -> Command:
    """Parses a command line, and opens the weights of --checkpoint.

    Args:
        argv: the program's name and the arguments, as in sys.argv.

    Raises:
        UserError: for a flag that does not exist or a value that it cannot have, and if
            --checkpoint cannot be opened.
    """
    program, *arguments = argv
    arguments, warnings = retired.replace(flagfiles.replace(arguments))
    argv = [program, *arguments]
    _parse_with_defaults((), argv)
    if FLAGS.mode == "doctor":  # It reads nothing that is stored, for which TensorFlow is needed.
        explicit = frozenset(name for name in _our_names() if FLAGS[name].present)
        return Command(definitions.to_config(), FLAGS.mode, explicit, (), tuple(warnings))
    _check_remote("model_dir")  # The next lines read what is stored there.
    explicit = frozenset(name for name in _our_names() if FLAGS[name].present)
    warnings += [
        f"--{name} {problem}." for name, problem in retired.NO_EFFECT.items() if name in explicit
    ]
    run_or_recipe, notes = _run_or_recipe(explicit)
    lower_priority = [*fine_tuning.defaults(), *run_or_recipe]
    _parse_with_defaults(lower_priority, argv)
    for name in _our_names():
        _check_remote(name)
    own, weights = _open_stored()
    preset, more = preset_lib.settings(explicit, weights)
    lower_priority += [flagfile.to_flag(name, value) for name, value in preset.items()]
    notes += more
    _parse_with_defaults(lower_priority, argv)
    if own is not None:
        if FLAGS.mode == "eval" and "checkpoint" in explicit:
            warnings.append(
                f"--checkpoint={FLAGS.checkpoint} is not read, because "
                f"--model_dir={FLAGS.model_dir} has weights of its own; evaluate it with another "
                "--model_dir."
            )
        values = _architecture_values(own, explicit, as_stored=True)
        notes += _changes(FLAGS.model_dir, values)
    else:
        values, more = _values_of_checkpoint(weights, explicit)
        notes += more
    lower_priority += [f"--{name}={value}" for name, value in values.items()]
    _parse_with_defaults(lower_priority, argv)
    config = definitions.to_config()
    return Command(config, FLAGS.mode, explicit, tuple(notes), tuple(warnings), weights)


def _run_or_recipe(explicit: frozenset[str]) -> tuple[list[str], list[str]]:
    """Returns the flags of the run to evaluate or of the recipe, if one is used, and notes."""
    stored = _flags_of_run(explicit) if FLAGS.mode in _RUN_STORED_FLAGS else None
    if stored is not None:
        return stored, []
    if "dataset" in explicit or not _uses_recipe():
        return [], []
    if FLAGS.data_dir is not None and "data_dir" in explicit:
        raise errors.UserError(
            f"--data_dir={FLAGS.data_dir} is given without --dataset; add --dataset=image_folder "
            "for a folder of images, or the name of a data set of tensorflow-datasets."
        )
    recipe = DEFAULT_RECIPE.relative_to(flagfiles.RECIPES.parent.parent)
    note = (
        "No --dataset: using the built-in handwritten digits, with the recipe "
        f"{recipe} for the flags that were not given."
    )
    return flagfiles.read(str(DEFAULT_RECIPE)), [note]


def _uses_recipe() -> bool:
    """Returns whether the command may be about the built-in digits."""
    if FLAGS.mode == "eval":
        return FLAGS.model_dir is None
    return FLAGS.mode not in _WITHOUT_RECIPE


def _our_names() -> list[str]:
    return [field.name for field in definitions.FIELDS]


def _parse_with_defaults(lower_priority: Sequence[str], argv: Sequence[str]) -> None:
    """Parses argv after other arguments, so that its values win."""
    FLAGS.unparse_flags()
    for name in _our_names():
        FLAGS[name].unparse()
    try:
        rest = FLAGS([argv[0], *lower_priority, *argv[1:]])
    except flags.Error as error:
        raise errors.UserError(_message(error)) from error
    # Deprecations inside libraries do not concern users. Parsing resets what is logged.
    logging.set_verbosity(logging.ERROR)
    if len(rest) > 1:
        raise errors.UserError(
            f"{rest[1]!r} is not a flag; flags are written --name=value (--help lists them)."
        )


def _check_remote(name: str) -> None:
    """Refuses a remote path that this TensorFlow cannot open, or would not read literally."""
    path = definitions.path_of(name)
    if path is None or paths.scheme(path) is None:
        return
    if name == "dataset" and FLAGS.dataset.startswith("tfrecord:"):
        return  # A pattern, which is checked when its files are listed.
    tensorflow_import.tensorflow()  # Not before it is needed.
    from simclr_tf import storage

    problem = storage.why_unreachable(path)
    character = paths.pattern_character(path)
    if problem is None and character is not None and name in _CHECKPOINT_PATHS:
        problem = (
            f"contains {character}, which TensorFlow reads as part of a pattern of file names; "
            "use another name."
        )
    if problem is not None:
        raise errors.UserError(f"--{name}={path} {problem}")


def _message(error: flags.Error) -> str:
    """Returns the message for an error of absl."""
    if isinstance(error, flags.UnrecognizedFlagError):
        near = suggestions.suggestion(error.flagname)
        return f"Unknown flag --{error.flagname}{near}; --help lists the flags."
    if isinstance(error, flags.IllegalFlagValueError):
        name, _, value = str(error).removeprefix("flag --").partition("=")
        value = value.removesuffix(f": {error.__context__}")
        expected = _EXPECTED.get(FLAGS[name].flag_type(), "valid")
        if name == "study_seeds" and len(text.listed(value)) > 1:
            return f"--{name}={value} {suggestions.number_of_seeds(text.listed(value))}"
        return f"--{name} must be {expected}, got {value!r}."
    return f"{' '.join(str(error).split())} (--help lists the flags)."


def _flags_of_run(explicit: frozenset[str]) -> list[str] | None:
    """Returns the flags stored with the run in --model_dir; None if there are none.

    Args:
        explicit: names of the flags that were given, which override the stored ones.

    Raises:
        UserError: if they cannot be read, or are invalid.
    """
    if FLAGS.model_dir is None:
        return None
    tensorflow_import.tensorflow()  # Not before it is needed.
    from simclr_tf.runs import directory

    folder = FLAGS.model_dir
    if FLAGS.mode == "replay":  # Of the step; the run may have been resumed with other settings.
        folder = os.path.join(folder, directory.BAD_STEP)
    stored = directory.read_config(folder)
    if stored is None:
        return None
    given: dict[str, Any] = {name: FLAGS[name].value for name in explicit}
    problem = _why_invalid(dataclasses.replace(stored, **given)) and _why_invalid(stored)
    if problem is not None:
        raise errors.UserError(
            f"{folder}/{directory.FLAGS} has an invalid setting ({problem.rstrip('.')}); "
            "correct it there, or override it on the command line."
        )
    return stored.to_flagfile().splitlines()


def _why_invalid(config: config_lib.Config) -> str | None:
    try:
        config_lib.validate(config)
    except errors.UserError as error:
        return str(error)
    return None


def _open_stored() -> tuple[simclr.Architecture | None, weights_lib.Weights | None]:
    """Returns the architecture of the run in --model_dir and the weights of --checkpoint, if any.

    The weights are opened only if they will be read.
    """
    if FLAGS.model_dir is None and FLAGS.checkpoint is None:
        return None, None
    tensorflow_import.tensorflow()
    from simclr_tf.runs import checkpoints, directory, weights

    own, opened = None, None
    reads_run = FLAGS.model_dir is not None and FLAGS.mode not in _WITHOUT_NETWORK_OF_MODEL_DIR
    if reads_run and checkpoints.latest(FLAGS.model_dir):
        own = directory.read_architecture(FLAGS.model_dir)
    reads = own is None and FLAGS.mode != "replay"
    if FLAGS.checkpoint is not None and (reads or FLAGS.mode in _ALWAYS_READ_CHECKPOINT):
        opened = weights.open_weights(FLAGS.checkpoint)
    return own, opened


def _values_of_checkpoint(
    weights: weights_lib.Weights | None, explicit: frozenset[str]
) -> tuple[dict[str, Any], list[str]]:
    """Returns the values of flags that the weights of --checkpoint decide, and notes on them."""
    if weights is None or weights.architecture is None:
        return {}, []
    from simclr_tf.runs import compatibility

    given = {name: FLAGS[name].value for name in explicit}
    # Training may choose other heads than those of the weights.
    compatibility.check_explicit(weights, given, heads=FLAGS.mode == "convert")
    as_stored = FLAGS.mode in _KEEP_STORED_NETWORK
    values = _architecture_values(weights.architecture, explicit, as_stored=as_stored)
    of_run = FLAGS.mode in _DATA_OF_CHECKPOINT and not explicit & {"dataset", "data_dir"}
    if of_run:  # The splits belong to it.
        from simclr_tf.runs import dataset

        stored = dataset.stored_settings(weights)
        values |= {name: value for name, value in stored.items() if name not in explicit}
    notes = _changes(f"{weights.origin} ({weights.description})", values)
    assumed = [setting for setting in weights.assumed if setting.split()[0] not in explicit]
    if assumed:
        notes.append(f"Assumed, because {weights.origin} does not say: {', '.join(assumed)}.")
    return values, notes


def _architecture_values(
    architecture: simclr.Architecture, explicit: frozenset[str], *, as_stored: bool
) -> dict[str, Any]:
    """Returns the flags of a stored architecture, except those given explicitly.

    Args:
        architecture: the stored architecture.
        explicit: names of the flags that were given.
        as_stored: includes the stage of the projection head that the classifier reads, which
            belongs to a run and not to the encoder that another run starts from.
    """
    from simclr_tf.models import simclr

    values = {
        name: getattr(architecture, name)
        for name in simclr.ARCHITECTURE_SETTINGS
        if name not in explicit and (as_stored or name != "ft_proj_selector")
    }
    if values.get("stem") == _automatic_stem(values):
        values["stem"] = "auto"
    return values


def _automatic_stem(values: Mapping[str, Any]) -> str:
    image_size = values.get("image_size", FLAGS.image_size)
    return config_lib.Config(stem="auto", image_size=image_size).resolved_stem


def _changes(origin: str, values: Mapping[str, Any]) -> list[str]:
    """Returns a note on the values that differ from those of the flags so far, if any do."""
    changed = [
        flagfile.to_flag(name, value)
        for name, value in values.items()
        if FLAGS[name].value != value
    ]
    return [f"Settings taken from {origin}: {', '.join(changed)}."] if changed else []
