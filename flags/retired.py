"""Flags of google-research/simclr that were renamed or removed: accepted, with a warning.

Scripts that were written for its `tf2/` or its TF1 code, of either release, keep running. The value
of a renamed flag is passed to its successor; removed flags are ignored. A flag that neither program
ever had is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses

from simclr_tf import errors


@dataclasses.dataclass(frozen=True)
class Retired:
    """What happened to a flag.

    Attributes:
        message: the rest of the sentence that begins with the flag's name.
        successor: the flag that gets its value, or None if the value is ignored.
        convert: converts its value to the successor's.
    """

    message: str
    successor: str | None = None
    convert: Callable[[str], str] = str


def _all_layers(hidden: str) -> str:
    try:
        return str(int(hidden) + 1)
    except ValueError as error:
        raise errors.UserError(
            f"--num_nlh_layers must be an integer, got {hidden!r}; or set --num_proj_layers to "
            "the number of layers of the projection head, the last one included."
        ) from error


RETIRED = {
    # The names of the first TF1 release.
    "head_proj_mode": Retired("was renamed --proj_head_mode", "proj_head_mode"),
    "head_proj_dim": Retired("was renamed --proj_out_dim", "proj_out_dim"),
    "num_nlh_layers": Retired(
        "was renamed --num_proj_layers, which also counts the last layer; the layers before it are "
        "as wide as the features",
        "num_proj_layers",
        _all_layers,
    ),
    # Both TF1 releases.
    "variable_schema": Retired(
        "has no effect: --checkpoint loads the whole encoder and each head that fits, and the "
        "program lists them; --zero_init_logits_layer ignores the linear head"
    ),
}

# Flags that are defined, so that they parse, but not used.
NO_EFFECT = {
    "eval_name": "has no effect, as in google-research/simclr tf2/; a --model_dir has one "
    "evaluation"
}


def replace(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Replaces retired flags by their successors.

    Args:
        arguments: a command line without the program's name, flagfiles already read.

    Returns:
        The current arguments, and one warning per retired flag.

    Raises:
        UserError: for a retired flag without a value, or with one that it cannot have.
    """
    rest, kept, warnings = list(arguments), [], []
    while rest:
        argument = rest.pop(0)
        name, assigned, value = argument.lstrip("-").partition("=")
        if not argument.startswith("-") or name not in RETIRED:
            kept.append(argument)
            continue
        if not assigned and not rest:
            raise errors.UserError(f"--{name} lacks a value; it {RETIRED[name].message}.")
        value = value if assigned else rest.pop(0)  # Written as two words.
        flag = RETIRED[name]
        warning = f"--{name} {flag.message}"
        if flag.successor is not None:
            kept.append(f"--{flag.successor}={flag.convert(value)}")
            warning += f"; used as {kept[-1]}"
        warnings.append(f"{warning}.")
    return kept, list(dict.fromkeys(warnings))
