"""Flags of google-research/simclr that have another name here, or none: taken, with a warning.

Scripts that were written for its `tf2/` or its TF1 code, of either release, keep running. A flag
whose meaning lives on hands its value to its successor; the others are left out. What neither
program ever had stays an error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses

from simclr_tf import errors


@dataclasses.dataclass(frozen=True)
class Retired:
    """What became of a flag.

    Attributes:
        told: the rest of the sentence that begins with the flag's name.
        successor: the flag that takes its value, or None if the value is dropped.
        convert: turns its value into the successor's.
    """

    told: str
    successor: str | None = None
    convert: Callable[[str], str] = str


def _all_layers(hidden: str) -> str:
    try:
        return str(int(hidden) + 1)
    except ValueError as error:
        raise errors.UserError(
            f"--num_nlh_layers={hidden} is no number; give the layers of the projection head, "
            "the last included, as --num_proj_layers."
        ) from error


RETIRED = {
    # The names of the first TF1 release.
    "head_proj_mode": Retired("is called --proj_head_mode now", "proj_head_mode"),
    "head_proj_dim": Retired("is called --proj_out_dim now", "proj_out_dim"),
    "num_nlh_layers": Retired(
        "is --num_proj_layers now, which counts the last layer too, and all layers but that are "
        "as wide as the features",
        "num_proj_layers",
        _all_layers,
    ),
    # Both TF1 releases.
    "variable_schema": Retired(
        "does nothing: --checkpoint takes the whole encoder and each head that fits, and says "
        "which; --zero_init_logits_layer leaves its linear head"
    ),
}

# Flags that are defined, so that they parse, and that nothing reads.
IDLE = {
    "eval_name": "does nothing, as in google-research/simclr tf2/; a --model_dir has one evaluation"
}


def replace(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Puts the successors of retired flags in their places.

    Args:
        arguments: a command line without the program's name, flagfiles already read.

    Returns:
        The arguments of today, and one warning per flag that was retired.

    Raises:
        UserError: for a retired flag without a value, or with one that it could not have.
    """
    rest, kept, warnings = list(arguments), [], []
    while rest:
        argument = rest.pop(0)
        name, assigned, value = argument.lstrip("-").partition("=")
        if not argument.startswith("-") or name not in RETIRED:
            kept.append(argument)
            continue
        if not assigned and not rest:
            raise errors.UserError(f"--{name} lacks a value; it {RETIRED[name].told}.")
        value = value if assigned else rest.pop(0)  # Written as two words.
        flag = RETIRED[name]
        told = f"--{name} {flag.told}"
        if flag.successor is not None:
            kept.append(f"--{flag.successor}={flag.convert(value)}")
            told += f"; taken as {kept[-1]}"
        warnings.append(f"{told}.")
    return kept, list(dict.fromkeys(warnings))
