"""Fine-tunes a network on a data set: a grid of runs, a choice, and a last run on all images."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import functools
import os
from typing import Any

import numpy as np

from simclr_tf import config as config_lib
from simclr_tf.runs import batch_size, dataset, predictions
from simclr_tf.runs import weights as weights_lib
from simclr_tf.transfer import cells, grids, networks, results, targets

# The folder of the last run.
BEST = "best"
# Checkpoints of a cell, at equal intervals; only the last one is kept.
_CHECKPOINTS = 10

# Trains and evaluates a run to its end, resuming from its last checkpoint, if it has one.
Train = Callable[[config_lib.Config, weights_lib.Weights | None], None]


@dataclasses.dataclass(frozen=True)
class FineTuning:
    """The fine-tuning of one network on one data set.

    Attributes:
        network: the network.
        target: the data set.
        choice: the settings of the data to choose on, see `choice.settings`.
        folder: the folder of its cells.
        replicas: number of replicas that train together.
    """

    network: networks.Network
    target: targets.Target
    choice: config_lib.Config
    folder: str
    replicas: int

    @property
    def grid(self) -> grids.Grid:
        """The cells to try."""
        kinds = grids.RANDOM if self.network.weights is None else grids.TRAINED
        return kinds[self.target.config.transfer_grid]

    @property
    def folders(self) -> list[str]:
        """The folders of the cells, and that of the last run."""
        return [os.path.join(self.folder, cell.name) for cell in self.grid.cells] + [self._best]

    @property
    def _best(self) -> str:
        return os.path.join(self.folder, BEST)

    def compute(self, train: Train) -> None:
        """Trains all cells that are not finished, and the best of them again on all images."""
        grid = self.grid.cells
        scores = [self._try(cell, train) for cell in grid]
        self._finish(grid[int(np.argmax(scores))], train)  # On a tie, the first one.

    def _try(self, cell: grids.Cell, train: Train) -> float:
        """Trains a cell, unless it is finished, and returns its score on the images to choose on.

        The score is by the metric of the data set.
        """
        folder = os.path.join(self.folder, cell.name)
        config = self._settings(cell, self.choice, folder)
        inputs = _inputs(config)
        found = cells.read(folder, inputs)
        if found is None:
            train(config, self.network.weights)
            found = {"score": results.value(predictions.read(folder), self.target.metric)}
            cells.finish(folder, inputs, found)
            cells.remove_weights(folder)
        return float(found["score"])

    def _finish(self, cell: grids.Cell, train: Train) -> None:
        """Trains the chosen cell on all images, and evaluates it on the evaluation split."""
        all_images = dataclasses.replace(self.target.config, train_split=self.target.all_split)
        config = self._settings(cell, all_images, self._best)
        inputs = _inputs(config)
        if cells.read(self._best, inputs) is None:
            train(config, self.network.weights)
            chosen = {"learning_rate": cell.learning_rate, "weight_decay": cell.decay}
            cells.finish(self._best, inputs, chosen)

    def score(self) -> results.Score:
        """Returns the score of the last run, which is finished."""
        return results.read(self.target, self.network, results.FINE_TUNED, self._best)

    @functools.cached_property
    def _images_to_learn_from(self) -> int:
        return dataset.open_source(self.choice).num_examples(self.choice.train_split)

    def _num_images(self, data: config_lib.Config) -> int:
        """Returns the number of training images of the data to choose on, or of all data."""
        if data is self.choice:
            return self._images_to_learn_from
        return self.target.data.source.num_examples(data.train_split)

    def _settings(
        self, cell: grids.Cell, data: config_lib.Config, folder: str
    ) -> config_lib.Config:
        """Returns the settings of the run of a cell.

        Args:
            cell: learning rate and weight decay.
            data: the settings of the data.
            folder: the run directory.
        """
        grid, count = self.grid, self._num_images(data)
        config = dataclasses.replace(
            self.network.configure(data),
            **_PROTOCOL,
            model_dir=folder,
            train_batch_size=grid.batch_size,
            learning_rate=cell.learning_rate,
            weight_decay=cell.weight_decay,
        )
        config = batch_size.fit(config, count, self.replicas)
        batch = config.train_batch_size
        steps = grid.steps or max(1, grid.epochs * count // batch)
        config = dataclasses.replace(
            config,
            train_steps=steps,
            checkpoint_steps=max(1, steps // _CHECKPOINTS),
            batch_norm_decay=grids.batch_norm_decay(count, batch),
        )
        config_lib.validate(config)
        return config


# What B.8.1 does for all cells. Views are made by crop and flip, which `augmentation` is without
# another value; the rate decays by a cosine.
_PROTOCOL: dict[str, Any] = {
    "mode": "train_then_eval",
    "train_mode": "finetune",
    "optimizer": "momentum",
    "momentum": 0.9,
    "learning_rate_scaling": "linear",
    "warmup_epochs": 0.0,
    "keep_checkpoint_max": 1,
    "evaluations": "none",
    "linear_eval": False,
    "transfer_to": None,
    "baselines": None,
    "transfer_grid": "none",
}


def _inputs(config: config_lib.Config) -> dict[str, Any]:
    """Returns what the result of a run depends on."""
    names = (
        *("checkpoint", "image_size", "dataset", "data_dir", "labels", "train_split"),
        *("eval_split", "eval_steps", "seed", "learning_rate", "weight_decay", "train_steps"),
        *("train_batch_size", "batch_norm_decay", "mixed_precision"),
    )
    return {name: getattr(config, name) for name in names}
