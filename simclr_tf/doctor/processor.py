"""Checks the processor: its instructions, how many cores may be used, and what else uses them."""

from __future__ import annotations

from collections.abc import Mapping, Set

from simclr_tf import text
from simclr_tf.doctor import finding
from simclr_tf.runs import machine

# Linux's names of instruction sets, and those of the makers.
_FLOAT32 = {"avx2": "AVX2", "avx512f": "AVX-512", "asimd": "NEON", "sve": "SVE"}
_X86 = "sse2"  # Every such processor with 64 bits has it.
_BUSY = 0.5  # Of all cores.


def instructions(model: str, sets: Set[str]) -> finding.Finding:
    """Checks which instructions the processor has that make training faster.

    Args:
        model: model of the processor.
        sets: Linux's names of its instruction sets; none if they are unknown.
    """
    what, name = "processor", model or "unknown model"
    if not sets:
        return finding.ok(what, f"{name}; its instructions are unknown")
    float32 = [shown for one, shown in _FLOAT32.items() if one in sets]
    by_kind = [
        ", ".join(shown) or "none" for shown in (float32, machine.bfloat16_instructions(sets))
    ]
    value = f"{name}; fast instructions for float32: {by_kind[0]}; for bfloat16: {by_kind[1]}"
    if _X86 not in sets or "avx2" in sets:
        return finding.ok(what, value)
    pass_through = "In a virtual machine, pass the host's processor through."
    if "avx" in sets:
        remedy = f"Without AVX2, training is slow; use a newer processor. {pass_through}"
        return finding.Finding(what, finding.WARNING, value, remedy)
    return finding.Finding(
        what,
        finding.PROBLEM,
        f"{value}; it has no AVX, without which TensorFlow from PyPI ends at its import",
        f"Use another machine, or build TensorFlow for this one. {pass_through}",
    )


def onednn(environment: Mapping[str, str]) -> finding.Finding:
    """Checks whether TensorFlow uses oneDNN on the processor.

    Args:
        environment: the variables of the process.
    """
    what = "oneDNN"
    if machine.uses_onednn(environment):
        return finding.ok(what, "on")
    return finding.Finding(
        what,
        finding.WARNING,
        f"off ({machine.ONEDNN}={environment[machine.ONEDNN]})",
        f"Training on a processor is slower without it; run: unset {machine.ONEDNN}",
    )


def cores(usable: int, of: int, quota: float | None) -> finding.Finding:
    """Checks how many cores this process may use.

    Args:
        usable: the cores that it may run on.
        of: the cores of the machine.
        quota: the time of how many cores it may use; None if that is not limited.
    """
    value = f"{usable} usable of {of}"
    if quota is None or quota >= usable:
        return finding.ok("cores", value)
    whole = max(1, int(quota))
    return finding.Finding(
        "cores",
        finding.WARNING,
        f"{value}, but the container or job may only use the time of {quota:g}",
        f"TensorFlow starts threads for {text.count(usable, 'core')}, and they are paused often; "
        f"raise the limit, or start it with: taskset -c 0-{whole - 1} python run.py ...",
    )


def load(average: float, of: int) -> finding.Finding:
    """Checks what other programs take of the processor.

    Args:
        average: number of threads that ran or waited for a core, over the last minute.
        of: the cores of the machine.
    """
    value = f"{average:.1f} busy threads on {text.count(of, 'core')} in the last minute"
    if average < _BUSY * of:
        return finding.ok("load", value)
    return finding.Finding(
        "load",
        finding.WARNING,
        value,
        "Other programs use the processor, so training is slower, and so is the training step "
        "measured here; end them, or wait.",
    )
