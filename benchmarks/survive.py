"""Kills a run at random moments, starts it again, and checks that nothing was lost.

    python benchmarks/survive.py               200 kills, in about 20 minutes on two cores
    python benchmarks/survive.py --kills=8     8 kills, in about a minute
    python benchmarks/survive.py --json        also prints one JSON object as the last line

A tiny run of `run.py --mode=train_then_eval` trains, exports and evaluates. It is ended by SIGKILL
or SIGTERM, two times in five at a moment that is uniform over its lifetime, and otherwise while it
saves a checkpoint, writes metrics, exports or evaluates. The same command then starts it again.
After some kills it may finish, and the next run begins.

After every kill, all files that exist must be readable, and no more steps may be lost than were
trained since the last checkpoint: none after SIGTERM. A finished run must have the same weights,
metrics, results and files, bit for bit, as one that was never killed. The exit code is 1 otherwise,
and the run directories with findings are kept.

Every start is a process of its own that calls `run.main`. It is forked from a process that has
imported TensorFlow but has not run any operation, which saves the seconds of the import.
"""

# ruff: noqa: I001  (simclr_tf chooses Keras 2, so it is imported before TensorFlow)

from __future__ import annotations

import argparse
from collections.abc import Callable
import contextlib
import dataclasses
import json
import os
import pathlib
import random
import shutil
import signal
import sys
import tempfile
import time
from typing import Any

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

from benchmarks import run_monitor
from simclr_tf import console, preemption

_STEPS, _CHECKPOINT_STEPS = 24, 3
FLAGS = [
    "--mode=train_then_eval",
    "--train_split=train[:64]",
    "--eval_split=test[:32]",
    "--image_size=8",
    "--resnet_depth=8",
    "--proj_out_dim=8",
    "--num_proj_layers=2",
    "--train_batch_size=8",
    "--eval_batch_size=32",
    "--optimizer=momentum",
    "--learning_rate=0.5",
    "--warmup_epochs=0",
    "--augmentation=crop",
    "--nolinear_eval",
    f"--train_steps={_STEPS}",
    f"--checkpoint_steps={_CHECKPOINT_STEPS}",
    "--train_summary_steps=1",
]
# How often each phase is chosen for a kill, if the moment is not uniform over the lifetime.
_CHOSEN = {"training": 1, "metrics": 2, "saving": 4, "exporting": 2, "evaluating": 1}
_UNIFORM = 0.4
_KILLS_PER_RUN = 6
_SIGNALS = (signal.SIGKILL, signal.SIGTERM)
_POLL_SECONDS = 0.0005
_TIMEOUT_SECONDS = 300.0
_TIMED_OUT = -1000  # As the exit code of a run that did not end.
_MOST_ENTRIES = 2
_OUTPUT = "output.txt"
_SHOWN = 20  # findings of each kind


@dataclasses.dataclass(frozen=True)
class Moment:
    """When to kill a run: some seconds after it entered a phase for the nth time."""

    phase: str
    entry: int
    seconds: float


@dataclasses.dataclass
class Findings:
    """What the kills showed; the lists must stay empty.

    Attributes:
        kills: number of kills by signal and phase.
        finished: number of runs that were finished.
        lost: more steps were lost than allowed.
        unreadable: files that were damaged after a kill.
        refused: starts that failed.
        unequal: differences of finished runs from the run that was never killed.
    """

    kills: dict[str, dict[str, int]] = dataclasses.field(
        default_factory=lambda: {s.name: dict.fromkeys(run_monitor.PHASES, 0) for s in _SIGNALS}
    )
    finished: int = 0
    lost: list[str] = dataclasses.field(default_factory=list)
    unreadable: list[str] = dataclasses.field(default_factory=list)
    refused: list[str] = dataclasses.field(default_factory=list)
    unequal: list[str] = dataclasses.field(default_factory=list)

    def count(self) -> int:
        """Returns the number of kills."""
        return sum(sum(phases.values()) for phases in self.kills.values())

    def wrong(self) -> dict[str, list[str]]:
        """Returns the lists that must be empty, by the name of the row in the table."""
        return {
            "lost work": self.lost,
            "unequal bits": self.unequal,
            "unreadable files": self.unreadable,
            "failed starts": self.refused,
        }


class Killer:
    """Starts runs and kills them. Its process has imported TensorFlow but not started it."""

    def __init__(self, runs: pathlib.Path, seed: int, report: Callable[[Findings], None]) -> None:
        """Imports the program.

        Args:
            runs: folder for the run directories.
            seed: seed of the moments and the signals.
            report: called after every kill.
        """
        import run
        from simclr_tf.commands import evaluate
        from simclr_tf.runs import checkpoints, metrics_log
        from simclr_tf.serving import export
        from simclr_tf.training import loop

        from benchmarks import run_files

        self._main, self._files = run.main, run_files
        self._runs, self._random, self._report = runs, random.Random(seed), report
        self._monitor, self._findings = run_monitor.Monitor(), Findings()
        self._monitor.observe(loop, "fit", "training")
        self._monitor.observe(metrics_log.MetricsLog, "write", "metrics")
        self._monitor.observe(checkpoints.Checkpoints, "save", "saving")
        self._monitor.observe(export, "export", "exporting")
        self._monitor.observe(evaluate, "evaluate", "evaluating")

    def kill_runs(self, kills: int) -> None:
        """Kills runs until the number of kills is reached or a start fails; finishes the last."""
        self._finish_expected()
        while (missing := kills - self._findings.count()) > 0 and not self._findings.refused:
            folder = self._runs / f"run-{self._findings.finished + 1}"
            wrong = str(self._findings.wrong())
            self._kill_run(folder, min(_KILLS_PER_RUN, missing))
            self._findings.finished += 1
            if str(self._findings.wrong()) == wrong:
                shutil.rmtree(folder)
            self._report(self._findings)

    def _finish_expected(self) -> None:
        """Finishes a run without a kill, to compare others with it and to learn durations."""
        self._expected = self._runs / "expected"
        code = self._start(self._expected, None, signal.SIGKILL)
        if code != 0 or self._monitor.resumed != 0:
            sys.exit(f"The run without a kill failed with code {code}:\n{self._printed()}")
        self._visits = {}
        for phase in _CHOSEN:
            count = self._monitor.entries(phase)
            if not count:
                sys.exit(f"The run without a kill did not enter the phase {phase!r}.")
            self._visits[phase] = (count, self._monitor.seconds(phase) / count)

    def _kill_run(self, folder: pathlib.Path, kills: int) -> None:
        """Kills one run some times, or until it has finished, and compares it with the other."""
        killed = checkpoint = 0
        while True:
            number = self._random.choices(_SIGNALS, (3, 2))[0]
            code = self._start(folder, self._choose() if killed < kills else None, number)
            if self._monitor.resumed not in (-1, checkpoint):
                resumed = f"resumed from step {self._monitor.resumed}, not {checkpoint}"
                self._findings.lost.append(f"{folder.name}: {resumed}")
            if code == 0:
                break
            if code not in (-number, preemption.EXIT_CODE):
                self._findings.refused.append(f"{folder.name}: {code}: {self._printed()[-500:]}")
                return
            killed += 1
            checkpoint = self._after_kill(folder, number, checkpoint)
            self._report(self._findings)
        different = run_monitor.call(self._files.differences, folder, self._expected)
        self._findings.unequal += [f"{folder.name}: {one}" for one in different]

    def _choose(self) -> Moment:
        if self._random.random() < _UNIFORM:
            return Moment("start", 0, self._random.uniform(0, self._lifetime))
        phase = self._random.choices(list(_CHOSEN), list(_CHOSEN.values()))[0]
        count, seconds = self._visits[phase]
        entry = self._random.randint(1, min(count, _MOST_ENTRIES))
        return Moment(phase, entry, self._random.uniform(0, seconds))

    def _start(self, folder: pathlib.Path, moment: Moment | None, number: signal.Signals) -> int:
        """Starts a run, and kills it unless it ends before. Returns its exit code."""
        self._monitor.reset()
        start = time.monotonic()
        arguments = ["run.py", *FLAGS, f"--model_dir={folder}"]
        process = run_monitor.start(self._main, arguments, self._runs / _OUTPUT)
        if moment is not None:
            while self._monitor.entries(moment.phase) < moment.entry and process.is_alive():
                time.sleep(_POLL_SECONDS)
            process.join(moment.seconds)
            self._phase = self._monitor.phase
            if process.is_alive():  # Otherwise its number may be that of another process.
                os.kill(process.pid, number)
        process.join(_TIMEOUT_SECONDS)
        if process.is_alive():
            process.kill()
            process.join()
            return _TIMED_OUT
        if process.exitcode == 0:
            self._lifetime = time.monotonic() - start
        elif number == signal.SIGKILL:
            self._phase = self._monitor.phase  # It may have changed before the kill.
        return process.exitcode

    def _printed(self) -> str:
        return (self._runs / _OUTPUT).read_text(errors="replace")

    def _after_kill(self, folder: pathlib.Path, number: signal.Signals, before: int) -> int:
        """Counts a kill and checks the files; returns the step of the last checkpoint."""
        self._findings.kills[number.name][self._phase] += 1
        last, logged, damaged = run_monitor.call(self._files.inspect, folder)
        where = f"{folder.name}, {number.name} while {self._phase}"
        self._findings.unreadable += [f"{where}: {one}" for one in damaged]
        in_training = self._phase in ("training", "metrics", "saving")
        allowed = 0 if number == signal.SIGTERM and in_training else _CHECKPOINT_STEPS
        if not (last >= before and last <= logged <= last + allowed):
            numbers = f"checkpoint of step {last} (before: {before}), metrics to step {logged}"
            self._findings.lost.append(f"{where}: {numbers}")
        return last


def _work(sender: Any, runs: pathlib.Path, kills: int, seed: int) -> None:
    """Kills runs and sends what was found after each kill."""
    Killer(runs, seed, sender.send).kill_runs(kills)


def _watch(runs: pathlib.Path, kills: int, seed: int) -> Findings:
    """Kills runs in another process and shows the progress.

    The progress bar has a thread, with which a process should not be forked.
    """
    receiver, sender = run_monitor.FORK.Pipe(duplex=False)
    worker = run_monitor.FORK.Process(target=_work, args=(sender, runs, kills, seed))
    worker.start()
    sender.close()
    findings = Findings()
    with console.Progress("kill", kills) as progress, contextlib.suppress(EOFError):
        while True:
            findings = receiver.recv()
            wrong = sum(map(len, findings.wrong().values()))
            progress.update(findings.count(), f"{findings.finished} runs finished, {wrong} wrong")
    worker.join()
    if worker.exitcode != 0:
        sys.exit("The benchmark failed; see above.")
    return findings


def _show(findings: Findings) -> None:
    rows = [
        [phase, *(str(findings.kills[number.name][phase]) for number in _SIGNALS)]
        for phase in run_monitor.PHASES
    ]
    console.table("kills", ["during", *(number.name for number in _SIGNALS)], rows)
    wrong = {name: len(found) for name, found in findings.wrong().items()}
    console.facts("all runs", {"finished runs": findings.finished, **wrong})
    for name, found in findings.wrong().items():
        for one in found[:_SHOWN]:
            console.say(f"{name}: {one}")


def main() -> int:
    """Kills runs and prints what was found. Returns 1 if anything was wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments and the signals")
    parser.add_argument("--json", action="store_true", help="print a JSON object as the last line")
    arguments = parser.parse_args()
    runs, start = pathlib.Path(tempfile.mkdtemp(prefix="survive-")), time.monotonic()
    findings = _watch(runs, arguments.kills, arguments.seed)
    _show(findings)
    failed = any(findings.wrong().values())
    if failed:
        console.say(f"The run directories are kept in {runs}.")
    else:
        shutil.rmtree(runs)
    if arguments.json:
        seconds = round(time.monotonic() - start, 1)
        print(json.dumps({**dataclasses.asdict(findings), "seconds": seconds}))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
