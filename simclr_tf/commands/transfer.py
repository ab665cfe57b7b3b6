"""The transfer command: how well an encoder works on other data sets (SimCLR, appendix B.8)."""

from __future__ import annotations

from collections.abc import Collection, Iterator
import contextlib
import dataclasses
import gc
import io
import os

import tensorflow as tf

from simclr_tf import config as config_lib
from simclr_tf import console, errors
from simclr_tf import preemption as preemption_lib
from simclr_tf.commands import evaluate, train
from simclr_tf.keras_api import keras
from simclr_tf.report import transfer as report
from simclr_tf.runs import checkpoints, directory, lock
from simclr_tf.runs import pixels as pixels_lib
from simclr_tf.runs import weights as weights_lib
from simclr_tf.transfer import (
    cells,
    choice,
    fine_tuning,
    linear_cells,
    networks,
    results,
    targets,
)

CELLS, LOG = "cells", "log.txt"


@dataclasses.dataclass(frozen=True)
class _Pair:
    """A network on a data set.

    Attributes:
        network: the network.
        target: the data set.
        folder: the folder of its cells.
        tuning: its fine-tuning; None without.
    """

    network: networks.Network
    target: targets.Target
    folder: str
    tuning: fine_tuning.FineTuning | None

    @property
    def linear_folder(self) -> str:
        """The folder of the linear evaluation."""
        return os.path.join(self.folder, results.LINEAR)

    @property
    def cell_folders(self) -> list[str]:
        """The folders of all cells."""
        return [self.linear_folder, *(self.tuning.folders if self.tuning else ())]


def transfer(
    config: config_lib.Config,
    strategy: tf.distribute.Strategy,
    weights: weights_lib.Weights | None,
    preemption: preemption_lib.Preemption,
    *,
    explicit: Collection[str] = (),
) -> None:
    """Measures how well networks work on other data sets, and compares them.

    Finished cells are read back, and a run that was interrupted resumes.

    Args:
        config: the settings.
        strategy: the strategy that runs on the replicas.
        weights: the weights of --checkpoint.
        preemption: signals that end training early.
        explicit: names of the flags that were given.

    Raises:
        UserError: for whatever the user can fix.
        Preempted: if a signal ended training early.
    """
    assert config.model_dir is not None
    if checkpoints.latest(config.model_dir) or weights is None:
        raise errors.UserError(
            f"--model_dir={config.model_dir} contains a training run; name another folder for the "
            "results of a transfer."
        )
    opened = _open_targets(config, explicit)
    rows = networks.open_networks(config, weights)
    for target in opened:
        data = target.data
        pixels_lib.check_suits(
            target.config, data.source, data.train_split, rows[0].pixels, weights.origin
        )
    directory.ensure_writable(config.model_dir)
    with lock.hold(config.model_dir) as held:
        pairs = [
            _pair(config.model_dir, network, target, strategy.num_replicas_in_sync)
            for target in opened
            for network in rows
        ]
        _compute(pairs, strategy, preemption, held)
        scores = [score for pair in pairs for score in _scores(pair)]
        tested = results.test(scores, seed=config.seed)
        held.check(now=True)
        about = {"checkpoint": weights.origin, "seed": config.seed, "grid": config.transfer_grid}
        report.write(config.model_dir, about, tested)
    report.show(tested)
    _warn_of_limits(scores)
    console.say(f"Files in {config.model_dir}: {', '.join(report.FILES)}, {CELLS}/.")


def _open_targets(config: config_lib.Config, explicit: Collection[str]) -> list[targets.Target]:
    """Opens the data sets, and prints what there is to know about them."""
    if "dataset" in explicit:
        console.warn(f"--dataset={config.dataset} is not read; --transfer_to names data sets.")
    opened = targets.open_targets(config, eval_split_given="eval_split" in explicit)
    for target in opened:
        for note in target.data.source.notes:
            console.say(f"{target.name}: {note}")
    return opened


def _pair(
    model_dir: str, network: networks.Network, target: targets.Target, replicas: int
) -> _Pair:
    of_target = os.path.join(model_dir, CELLS, target.folder)
    folder = os.path.join(of_target, network.folder)
    tf.io.gfile.makedirs(folder)
    tuning = None
    if target.config.transfer_grid != "none":
        data = choice.settings(target, of_target)
        tuning = fine_tuning.FineTuning(network, target, data, folder, replicas)
    return _Pair(network, target, folder, tuning)


def _compute(
    pairs: list[_Pair],
    strategy: tf.distribute.Strategy,
    preemption: preemption_lib.Preemption,
    held: lock.Held,
) -> None:
    """Computes all cells that are not finished."""
    folders = [folder for pair in pairs for folder in pair.cell_folders]
    finished = sum(map(cells.is_finished, folders))
    with console.Progress("cells", len(folders), finished) as progress:
        work = _Work(strategy, preemption, held, progress)
        for pair in pairs:
            inputs = linear_cells.inputs_of(pair.network, pair.target)
            if cells.read(pair.linear_folder, inputs) is None:
                work.evaluate_linearly(pair)
            if pair.tuning is not None:
                pair.tuning.compute(work.train)


def _scores(pair: _Pair) -> list[results.Score]:
    """Returns the scores of a pair, whose cells are finished."""
    linear = results.read(pair.target, pair.network, results.LINEAR, pair.linear_folder)
    return [linear] if pair.tuning is None else [linear, pair.tuning.score()]


def _warn_of_limits(scores: list[results.Score]) -> None:
    """Warns of linear classifiers whose fit did not converge."""
    for score in scores:
        if score.chosen.get("converged") is False:
            console.warn(
                f"{score.target.name}, {score.network.name}: the linear classifier reached its "
                "iteration limit."
            )


@dataclasses.dataclass(frozen=True)
class _Work:
    """Computes cells; what they print goes to a file in their folder.

    Attributes:
        strategy: the strategy that runs on the replicas.
        preemption: signals that end training early.
        held: the lock of the folder of the transfer.
        progress: counts finished cells.
    """

    strategy: tf.distribute.Strategy
    preemption: preemption_lib.Preemption
    held: lock.Held
    progress: console.Progress

    def evaluate_linearly(self, pair: _Pair) -> None:
        """Evaluates a network linearly on a data set."""
        with self._cell(pair.linear_folder):
            linear_cells.evaluate(pair.network, pair.target, self.strategy, pair.linear_folder)

    def train(self, config: config_lib.Config, weights: weights_lib.Weights | None) -> None:
        """Trains and evaluates a run, which resumes from its last checkpoint, if it has one."""
        assert config.model_dir is not None
        with self._cell(config.model_dir):
            run, model = train.train(
                config, self.strategy, weights, self.preemption, eval_split_given=True
            )
            evaluate.evaluate(run, model)

    @contextlib.contextmanager
    def _cell(self, folder: str) -> Iterator[None]:
        """Reports that a cell begins and that it has ended, and keeps what it prints."""
        self.held.check()
        name = "/".join(folder.split("/")[-3:])
        self.progress.update(self.progress.done, name)
        tf.io.gfile.makedirs(folder)
        with (
            tf.io.gfile.GFile(os.path.join(folder, LOG), "a") as log,
            contextlib.redirect_stdout(_Flushed(log)),
        ):
            yield
        # Dozens of networks would stay in memory.
        keras.backend.clear_session()
        gc.collect()
        self.progress.update(self.progress.done + 1, name)


class _Flushed(io.TextIOBase):
    """A text file that can be read while it is written."""

    def __init__(self, file: tf.io.gfile.GFile) -> None:
        super().__init__()
        self._file = file

    def write(self, content: str) -> int:
        """Writes, and makes it visible to readers."""
        self._file.write(content)
        self._file.flush()
        return len(content)
