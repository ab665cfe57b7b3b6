"""What --help prints, and docs/flags.md: both are generated from the fields of Config.

python -m flags.help > docs/flags.md
"""

from __future__ import annotations

import dataclasses
import textwrap
from typing import Any

from flags import definitions
from simclr_tf.config import metadata

_EXAMPLES = """\
Examples:
  python run.py --mode=train_then_eval
      pretrains on the built-in digits and evaluates the encoder; minutes on a CPU
  python run.py --mode=train_then_eval --preset=auto --dataset=image_folder \\
      --data_dir=PATH --model_dir=runs/mine
      the same on your own images, with settings for their number and size
  python run.py --flagfile=flags/recipes/cifar10_resnet18.flags --model_dir=runs/cifar
      runs a recipe; flags given after it override it
  python run.py --mode=finetune --checkpoint=runs/mine --model_dir=runs/tuned \\
      --dataset=image_folder --data_dir=PATH
      fine-tunes on labels, and evaluates the classifier
  python run.py --mode=eval --model_dir=runs/mine
      evaluates the last checkpoint; --evaluations=all measures everything
  python run.py --mode=transfer --checkpoint=runs/mine --model_dir=runs/transfer \\
      --transfer_to=cifar10,./other_photos
      measures how well the encoder works on other data sets
  python run.py --mode=embed --checkpoint=runs/mine --embeddings=emb
      writes the features of every image
  python run.py --mode=search --embeddings=emb --query=PHOTO.jpg
      finds the images that are nearest to a photo
  python run.py --mode=convert --checkpoint=PATH/saved_model --model_dir=runs/converted
      turns weights of google-research/simclr into a run; --checkpoint takes such
      files in every mode
  python run.py --mode=doctor
      checks the installation and this machine, if training is slow, fails or does
      not use the GPU"""

_PAGE = """\
# Flags

Generated from `simclr_tf/config/sections/` by `python -m flags.help > docs/flags.md`.
`python run.py --help` prints the same text.

A flag on the command line overrides the same flag in a flagfile (`--flagfile=PATH`), that overrides
what is stored with a run (in `--mode=eval`) or with its weights, and that overrides a preset
(`--preset`) or the recipe of the built-in digits, which applies if no `--dataset` is given.

Paths may begin with `~`. Relative ones are stored absolute, so that `--mode=eval --model_dir=RUN`
works from any directory. Remote paths, such as `gs://BUCKET/RUN`, work if TensorFlow supports
them."""


def usage() -> str:
    """Returns the text of --help: examples, then every flag by section."""
    blocks = [
        "Learns representations of images without labels (SimCLR), in TensorFlow 2.",
        _EXAMPLES,
    ]
    for title, fields in metadata.by_section(definitions.FIELDS).items():
        blocks.append("\n".join([f"{title}:", *map(_describe, fields)]))
    return "\n\n".join(blocks)


def page() -> str:
    """Returns docs/flags.md: a table of flags for every section."""
    blocks = [_PAGE]
    for title, fields in metadata.by_section(definitions.FIELDS).items():
        rows = [_row(field) for field in fields]
        blocks.append("\n".join([f"## {title}\n", "| flag | default | |", "|---|---|---|", *rows]))
    return "\n\n".join(blocks) + "\n"


def _describe(field: dataclasses.Field) -> str:
    fine_tuning = metadata.describe(field).fine_tuning
    default = _shown(field.default)
    if fine_tuning is not None:
        default += f"; to fine-tune: {_shown(fine_tuning)}"
    text = f"{metadata.describe(field).full_help} (default: {default})"
    indent = " " * 6
    return f"  --{field.name}\n" + textwrap.fill(
        text, 96, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )


def _row(field: dataclasses.Field) -> str:
    described = metadata.describe(field)
    text = f"{_code(described.choices)}. {described.help}" if described.choices else described.help
    if described.only_with is not None:
        other, values = described.only_with
        text += f" Only with `--{other}`: {_code(values)}."
    default = f"`{_shown(field.default)}`"
    if described.fine_tuning is not None:
        default += f"; to fine-tune: `{_shown(described.fine_tuning)}`"
    return f"| `--{field.name}` | {default} | {text.replace('|', chr(92) + '|')} |"


def _code(values: tuple[str, ...]) -> str:
    return ", ".join(f"`{value}`" for value in values)


def _shown(default: Any) -> str:
    if isinstance(default, bool):
        return str(default).lower()
    return "none" if default is None else f"{default}"


if __name__ == "__main__":
    print(page(), end="")
