"""Small runs of the whole program on a few small images, shared by several test files."""

from __future__ import annotations

from collections.abc import Callable, Iterable
import fcntl
import json
import os
import pathlib
import shutil
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import run
from simclr_tf.commands import train
from simclr_tf.models import simclr
from simclr_tf.serving import export

CLASSES = ("blue", "green", "red")
# A network and a training run that take seconds, most of them spent on tracing graphs.
SMALL = {
    "image_size": 8,
    "resnet_depth": 8,
    "proj_out_dim": 8,
    "num_proj_layers": 2,
    "train_batch_size": 8,
    "train_steps": 4,
    "checkpoint_steps": 2,
    "train_summary_steps": 1,
    "warmup_epochs": 0,
    "learning_rate": 0.5,
    "optimizer": "momentum",
    "eval_batch_size": 16,
    "evaluations": "none",
}
# The network alone, for tests of one step.
ARCHITECTURE = simclr.Architecture(
    resnet_depth=8,
    width_multiplier=1,
    stem="small",
    image_size=8,
    proj_head_mode="nonlinear",
    num_proj_layers=2,
    proj_out_dim=16,
    ft_proj_selector=0,
    batch_norm_decay=0.9,
    class_names=("a", "b", "c"),
)
# What makes a SavedModel and an image of the views.
_EXPORT, _SHOW_VIEWS = export.export, train._show_views
# Without these, half of the graph need not be traced.
NO_COLOR = {"use_color_jitter": False, "use_color_drop": False, "use_blur": False}


def once(
    make: Callable[[pytest.TempPathFactory], pathlib.Path],
) -> Callable[[pytest.TempPathFactory], pathlib.Path]:
    """Calls a function once per session and keeps its result for all test files and workers."""
    results: list[pathlib.Path] = []

    def get(factory: pytest.TempPathFactory) -> pathlib.Path:
        if not results:
            shared = "PYTEST_XDIST_WORKER" in os.environ
            results.append(_made_by_one_worker(make, factory) if shared else make(factory))
        return results[0]

    return get


def _made_by_one_worker(
    make: Callable[[pytest.TempPathFactory], pathlib.Path], factory: pytest.TempPathFactory
) -> pathlib.Path:
    """Returns what the first worker of pytest-xdist that comes here makes; others wait for it."""
    folder, name = factory.getbasetemp().parent, f"{make.__module__}.{make.__name__}"
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # Until the file is closed, or the worker has ended.
        path = folder / f"{name}.path"
        if not path.exists():
            path.write_text(str(make(factory)))
        return pathlib.Path(path.read_text())


def write_image(path: pathlib.Path, *, channel: int, rng: np.random.Generator) -> None:
    """Writes a noisy PNG that is brighter in one channel."""
    image = rng.integers(0, 120, (20, 24, 3))
    image[..., channel] += 100
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tf.io.encode_png(image.astype(np.uint8)).numpy())


@once
def photos(factory: pytest.TempPathFactory) -> pathlib.Path:
    """Returns a folder of train/ and test/, 12 and 6 images of each of three classes."""
    root, rng = factory.mktemp("photos"), np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 6)):
        for channel, name in enumerate(reversed(CLASSES)):
            for index in range(count):
                write_image(root / split / name / f"{index}.png", channel=channel, rng=rng)
    return root


@once
def unlabelled_photos(factory: pytest.TempPathFactory) -> pathlib.Path:
    """Returns a folder of the same images without class folders."""
    root = factory.mktemp("unlabelled")
    for index, path in enumerate(sorted(photos(factory).glob("train/*/*.png"))):
        shutil.copy(path, root / f"{index}.png")
    return root


@once
def pretrained(factory: pytest.TempPathFactory) -> pathlib.Path:
    """Returns the run directory of a pretraining run of four steps; copy it before changing it."""
    model_dir = factory.mktemp("runs") / "pretrained"
    with pytest.MonkeyPatch.context() as patch:  # With both, also for a test that skips them.
        patch.setattr(export, "export", _EXPORT)
        patch.setattr(train, "_show_views", _SHOW_VIEWS)
        assert main("pretrain", model_dir, photos(factory), **NO_COLOR) == 0
    return model_dir


@once
def embedded(factory: pytest.TempPathFactory) -> pathlib.Path:
    """Returns a folder of all embeddings of `photos` by `pretrained`; copy it before changing it.

    Three shards of 18 images: two of the training split, one of the test split.
    """
    folder = factory.mktemp("embeddings") / "all"
    assert run.main(["run.py", f"--checkpoint={pretrained(factory)}", *embed_flags(folder)]) == 0
    return folder


def embed_flags(folder: Any) -> list[str]:
    """Returns the flags that wrote `embedded`, except for the weights."""
    return [
        "--mode=embed",
        f"--embeddings={folder}",
        "--embed_shard_examples=18",
        "--eval_batch_size=9",
        "--embed_outputs=projection,logits",
    ]


def arguments(mode: str, model_dir: Any, data_dir: Any, **changes: Any) -> list[str]:
    """Returns a command line for a folder of images; a change to None omits the flag."""
    flags: dict[str, Any] = {
        "mode": mode,
        "model_dir": model_dir,
        "dataset": "image_folder",
        "data_dir": data_dir,
        **SMALL,
        **changes,
    }
    return ["run.py", *(f"--{name}={value}" for name, value in flags.items() if value is not None)]


def main(mode: str, model_dir: Any, data_dir: Any, **changes: Any) -> int:
    """Runs the program in this process and returns its exit code."""
    return run.main(arguments(mode, model_dir, data_dir, **changes))


def weights(model_dir: Any, step: int | None = None) -> dict[str, np.ndarray]:
    """Returns all numbers in a checkpoint except times: weights, optimizer slots and step."""
    path = (
        tf.train.latest_checkpoint(str(model_dir)) if step is None else f"{model_dir}/ckpt-{step}"
    )
    reader = tf.train.load_checkpoint(path)
    return {
        name: reader.get_tensor(name)
        for name in reader.get_variable_to_shape_map()
        if not name.startswith(("_CHECKPOINTABLE", "train_seconds", "save_counter"))
    }


def part(values: dict[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    """Returns the weights of one part of the model, such as "encoder"; without optimizer slots."""
    found = {key: value for key, value in values.items() if key.startswith(f"model/{name}/")}
    assert found, f"no {name} in {sorted(values)}"
    return found


def equal(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    """Returns whether two sets of weights are equal bit for bit."""
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def json_of(path: pathlib.Path) -> Any:
    """Returns the content of a JSON file."""
    return json.loads(path.read_text())


def lines_of(path: pathlib.Path) -> list[dict[str, Any]]:
    """Returns the content of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def snapshot(folder: pathlib.Path, patterns: Iterable[str] = ("*",)) -> dict[str, bytes]:
    """Returns the content of the files in a folder, to check later that they are unchanged."""
    found = {path for pattern in patterns for path in folder.rglob(pattern) if path.is_file()}
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(found)}
