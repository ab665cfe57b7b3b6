"""From argv to a Config: what lies beneath the flags that a person typed.

Three things may lie beneath: the recipe of the embedded data set, if no data set is named; the
flags of the run itself, in evaluation; the architecture stored with --checkpoint or --model_dir.
What a person typed always wins, and where it contradicts a stored architecture, the run refuses.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import pathlib
import re
import textwrap
from typing import TYPE_CHECKING, Any

from absl import flags

from flags import definitions, retired
from simclr_tf import config as config_lib
from simclr_tf import errors

if TYPE_CHECKING:
    from simclr_tf.models import simclr

RECIPES = pathlib.Path(__file__).parent / "recipes"
DEFAULT_RECIPE = RECIPES / "digits.flags"
FLAGS = flags.FLAGS
# Fields of an architecture that the weights of an encoder decide.
_OF_ENCODER = ("resnet_depth", "width_multiplier", "stem", "sk_ratio", "se_ratio")
_OF_HEAD = ("proj_head_mode", "num_proj_layers", "proj_out_dim")


@dataclasses.dataclass(frozen=True)
class Command:
    """What the command line asks for.

    Attributes:
        config: the run.
        asked_mode: --mode as it was typed, which may be a short form.
        typed: names of the flags that the person gave, on the line or in a flagfile.
        notes: sentences to print first, about what lies beneath.
        warnings: sentences about flags that do not do what they did in google-research/simclr.
    """

    config: config_lib.Config
    asked_mode: str
    typed: frozenset[str]
    notes: tuple[str, ...]
    warnings: tuple[str, ...] = ()


def parse(argv: Sequence[str]) -> Command:
    """Parses a command line.

    Args:
        argv: as in sys.argv, the program's name first.

    Raises:
        UserError: for a flag that does not exist or a value that it cannot have.
    """
    program, *arguments = _flagfiles_first(argv)
    arguments, warnings = retired.replace(_with_flagfiles_read(arguments))
    argv = [program, *arguments]
    _parse_over((), argv)
    typed = frozenset(name for name in _our_names() if FLAGS[name].present)
    warnings += [f"--{name} {retired.IDLE[name]}." for name in retired.IDLE if name in typed]
    notes: list[str] = []
    beneath: list[str] = []
    run_flags = _flags_of_run() if FLAGS.mode == "eval" else None
    if run_flags is not None:
        beneath = [f"--flagfile={run_flags}"]
    elif "dataset" not in typed and not _needs_no_recipe():
        beneath = [f"--flagfile={DEFAULT_RECIPE}"]
        notes.append(
            "No --dataset: using the embedded handwritten digits, with the recipe "
            f"{DEFAULT_RECIPE.relative_to(RECIPES.parent.parent)} beneath your flags."
        )
    if beneath:
        _parse_over(beneath, argv)
    beneath += _stored_architecture(typed, notes)
    _parse_over(beneath, argv)
    return Command(definitions.to_config(), FLAGS.mode, typed, tuple(notes), tuple(warnings))


def _needs_no_recipe() -> bool:
    """Tells what the embedded digits have no part in."""
    return FLAGS.mode in ("convert", "export") or (
        FLAGS.mode == "eval" and FLAGS.model_dir is not None
    )


def _our_names() -> list[str]:
    return [name for names in definitions.SECTIONS.values() for name in names]


def _flagfiles_first(argv: Sequence[str]) -> list[str]:
    """Moves every --flagfile to the front, because of two values the later one wins."""
    program, *rest = argv
    files: list[str] = []
    others: list[str] = []
    while rest:
        argument = rest.pop(0)
        name, assigned, _ = argument.partition("=")
        if name not in ("--flagfile", "-flagfile"):
            others.append(argument)
            continue
        files.append(argument)
        if not assigned and rest:  # Written as two words.
            files.append(rest.pop(0))
    return [program, *files, *others]


def _with_flagfiles_read(arguments: Sequence[str]) -> list[str]:
    """Puts the flags of every --flagfile in its place."""
    try:
        return FLAGS.read_flags_from_files(list(arguments), force_gnu=False)
    except flags.Error as error:
        raise errors.UserError(f"{_told(error)} (--help lists the flags).") from error


def _parse_over(beneath: Sequence[str], argv: Sequence[str]) -> None:
    """Parses argv over other arguments; the later of two values wins."""
    FLAGS.unparse_flags()
    for name in _our_names():
        FLAGS[name].unparse()
    try:
        rest = FLAGS([argv[0], *beneath, *argv[1:]])
    except flags.Error as error:
        raise errors.UserError(f"{_told(error)} (--help lists the flags).") from error
    if len(rest) > 1:
        raise errors.UserError(
            f"{rest[1]!r} is not a flag; flags are written --name=value (--help lists them)."
        )


def _told(error: flags.Error) -> str:
    """Returns absl's message without its quirks."""
    told = " ".join(str(error).split()).replace("ERROR:: ", "").replace(" ?", "?")
    return re.sub(r"^flag (--\S+?): ", r"\1 is no value of that flag: ", told)


def _flags_of_run() -> pathlib.Path | None:
    from simclr_tf.runs import directory  # Imports TensorFlow: not before it is needed.

    if FLAGS.model_dir is None:
        return None
    path = pathlib.Path(FLAGS.model_dir) / directory.FLAGS
    return path if path.exists() else None


def _stored_architecture(typed: frozenset[str], notes: list[str]) -> list[str]:
    """Returns the flags of the architecture stored with the run, except those typed."""
    from simclr_tf.models import simclr
    from simclr_tf.runs import checkpoints, directory

    stored, origin = None, FLAGS.model_dir
    if FLAGS.model_dir is not None and checkpoints.latest(FLAGS.model_dir):
        stored = directory.read_architecture(FLAGS.model_dir)
    if stored is None and FLAGS.checkpoint is not None:
        origin, stored = _architecture_of_checkpoint(typed, notes)
    if stored is None:
        return []
    # The stage that a classifier reads belongs to a run, not to the encoder it starts from.
    as_is = origin == FLAGS.model_dir or FLAGS.mode in ("convert", "eval", "export")
    values = {
        name: getattr(stored, name)
        for name in simclr.ARCHITECTURE_SETTINGS
        if name not in typed and (as_is or name != "ft_proj_selector")
    }
    if values.get("stem") == _automatic_stem(values):
        values["stem"] = "auto"
    changed = [name for name, value in values.items() if FLAGS[name].value != value]
    if changed:
        told = ", ".join(f"{name} {values[name]}" for name in changed)
        notes.append(f"From {origin}: {told}.")
    return [f"--{name}={value}" for name, value in values.items()]


def _architecture_of_checkpoint(
    typed: frozenset[str], notes: list[str]
) -> tuple[str, simclr.Architecture | None]:
    """Returns where --checkpoint leads, and the network there, which typed flags must not deny."""
    from simclr_tf.reference import loading
    from simclr_tf.runs import checkpoints, directory, weights

    foreign = weights.find_reference(FLAGS.checkpoint)
    if foreign is None:
        folder = checkpoints.locate(FLAGS.checkpoint)[0]
        return folder, directory.read_architecture(folder)
    # Training may choose other heads than theirs; converting takes what is there.
    fixed = (*_OF_ENCODER, *_OF_HEAD) if FLAGS.mode == "convert" else _OF_ENCODER
    asked = {name: FLAGS[name].value for name in fixed if name in typed}
    if asked.get("stem") == "auto":
        del asked["stem"]
    differing = loading.contradictions(foreign, asked)
    if differing:
        raise errors.UserError(
            f"--checkpoint={FLAGS.checkpoint} holds another network than the flags say "
            f"({foreign.described}): {'; '.join(differing)} there; leave these flags out."
        )
    origin = foreign.stored.origin
    notes.append(f"{origin} is a {foreign.described}.")
    assumed = [told for told in foreign.assumed if told.split()[0] not in typed]
    if assumed:
        notes.append(f"It does not tell, so assumed: {', '.join(assumed)}.")
    return origin, foreign.architecture


def _automatic_stem(values: dict[str, Any]) -> str:
    image_size = values.get("image_size", FLAGS.image_size)
    return config_lib.Config(stem="auto", image_size=image_size).resolved_stem


def flagfile_of(config: config_lib.Config) -> str:
    """Returns a flagfile that describes a run in full."""
    lines = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if value is None:
            continue
        if isinstance(value, bool):
            lines.append(f"--{'' if value else 'no'}{field.name}")
        else:
            lines.append(f"--{field.name}={value}")
    return "\n".join(lines) + "\n"


def usage() -> str:
    """Returns the text of --help: examples, then every flag by section."""
    blocks = [
        "Learns representations of images without labels (SimCLR), in TensorFlow 2.",
        textwrap.dedent(
            """\
            Examples:
              python run.py --mode=train_then_eval
                  pretrains on the embedded digits and says how good it is; minutes on a CPU
              python run.py --mode=train_then_eval --dataset=image_folder --data_dir=PATH \\
                  --image_size=96 --resnet_depth=18 --train_batch_size=128 --model_dir=runs/mine
                  the same on your own images
              python run.py --flagfile=flags/recipes/cifar10_resnet18.flags --model_dir=runs/cifar
                  a recipe; flags after it override it
              python run.py --mode=finetune --checkpoint=runs/mine --model_dir=runs/tuned \\
                  --dataset=image_folder --data_dir=PATH
                  fine-tunes on labels
              python run.py --mode=eval --model_dir=runs/mine
                  evaluates the last checkpoint
              python run.py --mode=convert --checkpoint=PATH/saved_model --model_dir=runs/theirs
                  makes a run of what google-research/simclr wrote; --checkpoint takes such
                  files everywhere"""
        ),
    ]
    for title, names in definitions.SECTIONS.items():
        blocks.append("\n".join([f"{title}:", *(_describe(name) for name in names)]))
    return "\n\n".join(blocks)


def _describe(name: str) -> str:
    flag = FLAGS[name]
    default = "none" if flag.default is None else str(flag.default).lower()
    if not isinstance(flag.default, bool):
        default = str(flag.default) if flag.default is not None else "none"
    body = textwrap.fill(
        f"{flag.help} (default: {default})", 96, initial_indent=" " * 6, subsequent_indent=" " * 6
    )
    return f"  --{name}\n{body}"
