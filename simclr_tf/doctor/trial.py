"""Runs `probe`, which uses TensorFlow, in a process of its own, and reads what it found."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from typing import Any

from simclr_tf import text
from simclr_tf.doctor import finding, gpus, packages, probe
from simclr_tf.studies import attempts

# Imports from a slow network disk were reported to take minutes.
_TIMEOUT = 900.0
_WORTH_IT = 1.1
_AGAIN = "make a new virtual environment and run pip install -r requirements.txt in it"


@dataclasses.dataclass(frozen=True)
class Trial:
    """What the process with TensorFlow found.

    Attributes:
        facts: what it wrote, by the keys of `probe`.
        log: its log.
        ended: how it ended, if not by itself, such as "it was ended by SIGILL".
    """

    facts: dict[str, Any]
    log: str = ""
    ended: str | None = None

    @property
    def failure(self) -> str | None:
        """Why the process did not come to its end; None if it did."""
        return self.facts.get(probe.ERROR) or self.ended


def run(seconds: float, *, python: str = sys.executable, timeout: float = _TIMEOUT) -> Trial:
    """Imports TensorFlow and trains in another process.

    Args:
        seconds: how long to train.
        python: the Python to run.
        timeout: seconds after which the process is ended.
    """
    environment = {
        **os.environ,
        "PYTHONPATH": attempts.python_path(),
        # The log names the libraries that are missing only if it is detailed there.
        "TF_CPP_MIN_LOG_LEVEL": "0",
        "TF_CPP_VMODULE": "dso_loader=1",
    }
    command = [python, "-m", "simclr_tf.doctor.probe", str(seconds)]
    try:
        process = subprocess.run(
            command,
            capture_output=True,
            env=environment,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as expired:
        return read(expired.stdout, expired.stderr, f"it did not end within {timeout:.0f} s")
    ended = None
    if process.returncode < 0:
        ended = f"it was ended by {signal.Signals(-process.returncode).name}"
    elif process.returncode:
        ended = f"it ended with exit code {process.returncode}"
    return read(process.stdout, process.stderr, ended)


def read(output: bytes | None, log: bytes | None, ended: str | None) -> Trial:
    """Returns what a process wrote."""
    facts: dict[str, Any] = {}
    for line in (output or b"").decode(errors="replace").splitlines():
        if line.startswith("{") and line.endswith("}"):  # Other packages may print, too.
            facts |= json.loads(line)
    return Trial(facts, (log or b"").decode(errors="replace"), ended)


def check_import(trial: Trial) -> finding.Finding:
    """Checks whether TensorFlow could be imported."""
    what = "import of TensorFlow"
    if probe.IMPORTED in trial.facts:
        return finding.ok(what, f"{trial.facts[probe.IMPORTED]['seconds']:.0f} s")
    failure = trial.failure or "the process ended without a message"
    if "SIGILL" in failure:
        remedy = (
            "This TensorFlow uses instructions that the processor does not have; use another "
            "machine, or build TensorFlow for this one."
        )
    elif "SIGKILL" in failure:
        remedy = "The system ends processes when memory runs out; free some, or raise the limit."
    elif "within" in failure:
        remedy = "If Python's packages are on a network disk, install them on a local one."
    else:
        remedy = f"Repair the packages that are named here; if there are none, {_AGAIN}."
    return finding.Finding(what, finding.PROBLEM, failure, remedy)


def seen_gpus(trial: Trial) -> gpus.Seen | None:
    """Returns what TensorFlow says of GPUs; None if it did not come to that."""
    facts = trial.facts
    if probe.DEVICES not in facts:
        return None
    imported, devices = facts[probe.IMPORTED], facts[probe.DEVICES]
    kinds = [name.partition(": ")[::2] for name in devices["names"]]
    cuda = packages.required_by("tensorflow", "and-cuda")
    return gpus.Seen(
        [model or kind for kind, model in kinds if kind == "GPU"],
        imported["cuda_build"],
        imported["version"],
        trial.log,
        packages.unmet(cuda, extra="and-cuda"),
        devices["free"],
    )


def check_speed(trial: Trial) -> finding.Finding | None:
    """Checks the training step; None if TensorFlow could not be imported."""
    what, facts = "training step", trial.facts
    if probe.IMPORTED not in facts:
        return None
    network = facts.get(probe.NETWORK, "a small network")
    if probe.BFLOAT16 in facts:
        float32, bfloat16 = facts[probe.FLOAT32], facts[probe.BFLOAT16]
        ratio = bfloat16 / float32
        gain = f"{ratio:.1f} times as fast" if ratio >= _WORTH_IT else "not faster"
        return finding.ok(
            what,
            f"{network}: {float32:,.0f} images/s in float32, {bfloat16:,.0f} images/s in bfloat16; "
            f"--mixed_precision=bfloat16 is {gain} here",
        )
    if probe.EMULATED in facts and probe.FLOAT32 in facts:
        return finding.ok(
            what,
            f"{network}: {facts[probe.FLOAT32]:,.0f} images/s in float32; bfloat16 would be "
            f"emulated, because {facts[probe.EMULATED]}",
        )
    failure = text.limited(trial.failure or "the process ended without a message")
    value = f"{network} failed: {failure}"
    remedy = "Please report this with all of this output."
    if "SIGKILL" in failure or "memory" in failure.lower() or "OOM" in failure:
        remedy = "Memory ran out; end other programs that use it, or raise the limit."
    return finding.Finding(what, finding.PROBLEM, value, remedy)
