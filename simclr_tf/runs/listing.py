"""Finds the runs below a folder, and reads how far each of them is and what it reached.

Nothing is written, and TensorFlow, whose import takes seconds, is imported only for remote paths.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
import dataclasses
import functools
import json
import os
import re
import time
from typing import Any, TypeVar

from simclr_tf import config as config_lib
from simclr_tf import errors, text
from simclr_tf.runs import holder, length, light_files, measured

# Names in a run directory, again, because the modules that write these files import TensorFlow.
ARCHITECTURE, FLAGS, DATA = "architecture.json", "flags.txt", "data.json"
LOCK, METRICS, RESULT, BEST = "training.lock", "metrics.jsonl", "result.json", "best.json"
UNREADABLE_IMAGES, BAD_STEP, BAD_STEP_FACTS = "bad_images.json", "bad_step", "step.json"
SAVED_MODEL, EVALUATION = "saved_model", "evaluation"
# What studies call the run: their cells.
CELL_TITLES = "cell_titles.json"
_CHECKPOINT = re.compile(r"ckpt-([0-9]+)\.index")

TRAINING, FINISHED, STOPPED, FAILED = "training", "finished", "stopped", "failed"
UNREADABLE = "unreadable"
# A training on another host is running if it renewed the lock so recently; it does every 10 s.
_SILENT_SECONDS = 90.0
# Enough of metrics.jsonl for its last complete line.
_END_BYTES = 100_000

_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True)
class Run:
    """A run directory.

    Attributes:
        name: its path, relative to the folder that was searched.
        state: TRAINING, FINISHED, STOPPED, FAILED or UNREADABLE.
        changed: when a file in it was last changed, in seconds since 1970.
        problems: what in it cannot be read, and why.
        config: its settings; None if they are not written yet or cannot be read.
        step: the last step that it recorded.
        total_steps: how many steps it trains; None if that is unknown.
        images: how many images it trains on; None if that is unknown.
        accuracy: the accuracy that stands for it; None if it was not evaluated.
        best: the best step of the evaluations during training; None without them.
        cells: what studies call it, such as "temperature: 0.1, seed 0"; none if it is not theirs.
    """

    name: str
    state: str
    changed: float
    problems: tuple[str, ...] = ()
    config: config_lib.Config | None = None
    step: int = 0
    total_steps: int | None = None
    images: int | None = None
    accuracy: measured.Accuracy | None = None
    best: measured.Best | None = None
    cells: tuple[str, ...] = ()

    def epochs(self, steps: int | None) -> float | None:
        """Returns how many epochs a number of steps is; None if that is unknown."""
        if steps is None or self.config is None or not self.images:
            return None
        return steps * self.config.train_batch_size / self.images


def find(under: str) -> list[Run]:
    """Returns the runs below a folder, by name; the folder itself may be one.

    Raises:
        UserError: if the folder cannot be listed.
    """
    found = []
    for folder, inside in _walk(under):
        name = os.path.relpath(folder, under)
        if isinstance(inside, list):
            if _is_run(inside):
                found.append(_read(_Folder(folder, inside), name))
        elif folder == under:
            raise errors.UserError(
                f"--under={under} cannot be listed ({_reason(inside)}); name a folder of runs."
            )
        else:
            problem = f"the folder cannot be listed ({_reason(inside)})"
            found.append(Run(name, UNREADABLE, 0.0, (problem,)))
    return sorted(found, key=lambda run: run.name)


def _walk(under: str) -> Iterator[tuple[str, list[light_files.Entry] | OSError]]:
    """Yields each folder below a folder with what is in it, or with why that cannot be listed.

    Symbolic links are followed last, so that a folder that has several paths is yielded once, with
    the one without links if there is such a one.
    """
    waiting, seen = deque([under]), set()
    while waiting:
        folder = waiting.popleft()
        try:
            identity = light_files.identity(folder)
            if identity in seen:
                continue
            seen.add(identity)
            inside = light_files.entries(folder)
        except OSError as error:
            yield folder, error
            continue
        yield folder, inside
        of_run = (BAD_STEP, SAVED_MODEL, EVALUATION) if _is_run(inside) else ()
        for entry in inside:
            if entry.is_folder and entry.name not in of_run:
                wait = waiting.append if entry.is_link else waiting.appendleft
                wait(os.path.join(folder, entry.name))


def _is_run(inside: list[light_files.Entry]) -> bool:
    return any(
        not entry.is_folder
        and (entry.name in (ARCHITECTURE, FLAGS, LOCK) or _CHECKPOINT.fullmatch(entry.name))
        for entry in inside
    )


class _Folder:
    """The files of a run, and what is wrong with those that were read."""

    def __init__(self, path: str, inside: list[light_files.Entry]) -> None:
        """Takes what is in the folder."""
        self.path, self.problems = path, list[str]()
        self.files = {entry.name for entry in inside if not entry.is_folder}
        self.folders = {entry.name for entry in inside if entry.is_folder}

    def read(self, name: str, parse: Callable[[str], _T]) -> _T | None:
        """Returns the parsed content of a file; None if there is no such file, or it is damaged."""
        if name not in self.files:
            return None
        try:
            return parse(light_files.read_text(os.path.join(self.path, name)))
        except FileNotFoundError:  # Deleted at this moment.
            return None
        except OSError as error:
            self.problems.append(f"{name} cannot be read ({_reason(error)})")
        except errors.UserError as error:
            self.problems.append(str(error).rstrip("."))
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            self.problems.append(f"{name} is damaged ({text.reason(error)})")
        return None

    def checkpoint_step(self) -> int | None:
        """Returns the step of the newest checkpoint; None without one."""
        matches = map(_CHECKPOINT.fullmatch, self.files)
        return max((int(match[1]) for match in matches if match), default=None)

    def last_recorded_step(self) -> int:
        """Returns the step of the last complete line of metrics.jsonl; 0 without one."""
        if METRICS not in self.files:
            return 0
        try:
            end = light_files.read_end(os.path.join(self.path, METRICS), _END_BYTES)
            lines = end[: end.rfind(b"\n") + 1].splitlines()
            return int(json.loads(lines[-1])["step"]) if lines else 0
        except (OSError, ValueError, LookupError, TypeError) as error:
            self.problems.append(f"{METRICS} is damaged ({text.reason(error)})")
            return 0

    def changed(self) -> float:
        """Returns when a file was last changed, in seconds since 1970."""
        times = []
        for name in self.files:
            try:
                times.append(light_files.modified(os.path.join(self.path, name)))
            except OSError:  # Deleted at this moment, or a link to nothing.
                continue
        return max(times, default=0.0)


def _read(folder: _Folder, name: str) -> Run:
    """Returns a run with all that can be read of it."""
    config = folder.read(FLAGS, functools.partial(config_lib.Config.from_flagfile, origin=FLAGS))
    held = folder.read(LOCK, lambda content: _is_held(folder, content)) or False
    if config is None:
        if held and FLAGS not in folder.files:  # It has just begun.
            return Run(name, TRAINING, folder.changed(), tuple(folder.problems))
        if FLAGS not in folder.files:
            folder.problems.append(f"it has no {FLAGS}, so its settings are unknown")
        return Run(name, UNREADABLE, folder.changed(), tuple(folder.problems))
    step, images = folder.checkpoint_step(), _images(folder, config)
    total = _total_steps(folder, config, images, step)
    is_finished = step is not None and total is not None and step >= total
    accuracy = folder.read(
        RESULT,
        lambda content: measured.accuracy(json.loads(content), classifies=not config.contrastive),
    )
    best = folder.read(BEST, lambda content: measured.best(json.loads(content)))
    cells = folder.read(CELL_TITLES, lambda content: tuple(map(str, json.loads(content))))
    return Run(
        name=name,
        state=TRAINING if held else FINISHED if is_finished else _unfinished(folder, step or 0),
        step=max(step or 0, folder.last_recorded_step()),
        total_steps=total,
        images=images,
        config=config,
        accuracy=accuracy,
        best=best,
        cells=cells or (),
        changed=folder.changed(),
        problems=tuple(folder.problems),
    )


def _is_held(folder: _Folder, content: str) -> bool:
    """Returns whether the process that a lock names is running, as far as this host can see."""
    found = holder.from_json(content)
    if found.is_here():
        return found.is_running()
    age = time.time() - light_files.modified(os.path.join(folder.path, LOCK))
    # Earlier versions do not renew it.
    return found.beats is None or age < _SILENT_SECONDS


def _images(folder: _Folder, config: config_lib.Config) -> int | None:
    """Returns how many images a run trains on; None if that is unknown."""
    images = folder.read(DATA, lambda content: int(json.loads(content)["images"]))
    if images is None:
        return None

    def count(content: str) -> int:
        splits: dict[str, Any] = json.loads(content)["splits"]
        return len(splits.get(config.train_split, {}).get("left_out", ()))

    if config.max_bad_images:
        images -= folder.read(UNREADABLE_IMAGES, count) or 0
    return images - length.validation_images(config, images)


def _total_steps(
    folder: _Folder, config: config_lib.Config, images: int | None, step: int | None
) -> int | None:
    """Returns how many steps a run trains; None if that is unknown.

    Args:
        folder: its files.
        config: its settings.
        images: how many images it trains on, if that is known.
        step: step of its newest checkpoint, if there is one.
    """
    if config.mode == "convert":  # Weights that were trained elsewhere.
        return step
    if images is not None or config.train_steps or not config.train_epochs:
        return length.total_steps(config, images or 0)
    # Earlier versions did not store the number of images. Training ends with an export.
    if SAVED_MODEL not in folder.folders or step is None:
        return None
    try:
        exports = light_files.entries(os.path.join(folder.path, SAVED_MODEL))
    except OSError:
        return None
    return step if str(step) in {entry.name for entry in exports} else None


def _unfinished(folder: _Folder, step: int) -> str:
    """Returns the state of a run that does not train: whether it failed after its checkpoint."""
    if BAD_STEP not in folder.folders:
        return STOPPED
    path = os.path.join(folder.path, BAD_STEP, BAD_STEP_FACTS)
    try:
        bad = int(json.loads(light_files.read_text(path))["step"])
    except (OSError, ValueError, LookupError, TypeError):
        return FAILED
    # Otherwise it was resumed with other settings, and trained past that step.
    return FAILED if bad > step else STOPPED


def _reason(error: OSError) -> str:
    return error.strerror or text.reason(error)
