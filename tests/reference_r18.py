"""The reference's ResNet-18 with made-up weights, and what the reference computes with them.

The weights are a function of the reference's names of variables, so they need not be stored.
`golden/reference_r18.npz` has what the graph of google-research/simclr computes with these weights;
`golden/README.md` says how it was made.
"""

from __future__ import annotations

import functools
import json
import pathlib
import re
from typing import Any
import zlib

import numpy as np
import pytest
import tensorflow as tf
import tiny_runs

from simclr_tf.models import simclr
from simclr_tf.serving import reference_format

GOLDEN = pathlib.Path(__file__).parent / "golden"
NUM_CLASSES = 10
ARCHITECTURE = simclr.Architecture(
    resnet_depth=18,
    width_multiplier=1,
    stem="small",
    image_size=16,
    proj_head_mode="nonlinear",
    num_proj_layers=3,
    proj_out_dim=128,
    ft_proj_selector=0,
    batch_norm_decay=0.9,
    class_names=simclr.placeholder_class_names(NUM_CLASSES),
)
# The settings in the reference's flags.json that this program reads.
FLAGS = {
    "resnet_depth": 18,
    "image_size": 16,
    "batch_norm_decay": 0.9,
    "ft_proj_selector": 0,
    "dataset": "cifar10",
    "train_split": "train",
    "eval_split": "test",
    "temperature": 0.5,
    "hidden_norm": True,
}
# One step of pretraining: LARS from zero momentum, with the linear head.
STEP = {"learning_rate": 0.5, "weight_decay": 1e-2, "momentum": 0.9, "temperature": 0.5}


def listed(form: str, network: str) -> dict[str, tuple[int, ...]]:
    """Returns the names and shapes in a list that the reference's code wrote.

    Args:
        form: "tf1", "tf2_variables" or "tf2_checkpoint".
        network: such as "r18_sk0".
    """
    shapes = {}
    for line in (GOLDEN / "names" / f"{form}_{network}.txt").read_text().splitlines():
        name, shape = line.split(" ", 1)
        if name != "_CHECKPOINTABLE_OBJECT_GRAPH":
            shapes[name] = tuple(int(side) for side in re.findall(r"\d+", shape))
    return shapes


@functools.cache
def weights() -> dict[str, np.ndarray]:
    """Returns the weights by the reference's names of variables."""
    shapes = listed("tf2_variables", "r18_sk0")
    values = {}
    for name, shape in shapes.items():
        if "head_supervised" in name:  # The list is of a network for 1000 classes.
            shape = (*shape[:-1], NUM_CLASSES)
        values[f"{name}:0"] = _made_up(name, shape)
    return values


def _made_up(name: str, shape: tuple[int, ...]) -> np.ndarray:
    rng = np.random.RandomState(zlib.crc32(name.encode()))  # Its numbers never change.
    leaf = name.split("/")[-1]
    if leaf in ("gamma", "moving_variance"):
        value = rng.uniform(0.5, 1.5, shape)
    elif leaf == "kernel":
        value = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[:-1]))
    else:  # Mostly above 0, so that few activations are near the edge of a ReLU.
        value = 0.5 + 0.5 * rng.standard_normal(shape)
    return value.astype(np.float32)


def images() -> np.ndarray:
    """Returns (4, 16, 16, 3) float32 in [0, 1]."""
    return _waves(np.random.RandomState(1), 4)


def batch() -> dict[str, np.ndarray]:
    """Returns "views" (16, 2, 16, 16, 3) float32 in [0, 1] and "label" (16,) int32."""
    rng = np.random.RandomState(2)
    common, others = _waves(rng, 16), _waves(rng, 32).reshape(16, 2, 16, 16, 3)
    views = 0.7 * common[:, np.newaxis] + 0.3 * others
    return {"views": views, "label": rng.randint(NUM_CLASSES, size=16).astype(np.int32)}


def _waves(rng: np.random.RandomState, count: int) -> np.ndarray:
    """Returns (count, 16, 16, 3) float32 in [0, 1], smooth like photographs."""
    y, x = np.mgrid[:16, :16] / 16
    down, right, phase = rng.uniform(-9, 9, (3, count, 1, 1, 3))  # In radians over the image.
    angles = down * y[..., np.newaxis] + right * x[..., np.newaxis] + phase
    return (0.5 + 0.5 * np.cos(angles)).astype(np.float32)


def sample(x: np.ndarray, count: int = 64) -> np.ndarray:
    """Returns `count` numbers of an array at equal distances, or all if there are fewer."""
    flat = np.asarray(x).reshape(-1)
    return flat[np.linspace(0, flat.size - 1, min(count, flat.size)).astype(int)]


def signature_of(module: Any) -> dict[str, Any]:
    """Returns, as JSON types, a loaded model's arguments, outputs and variables."""

    def described(spec: Any) -> Any:
        if isinstance(spec, tf.TensorSpec):
            return [spec.shape.as_list(), spec.dtype.name, spec.name]
        return spec

    calls = [
        {
            "arguments": [described(x) for x in f.structured_input_signature[0]],
            "keywords": f.structured_input_signature[1],
            "outputs": {k: described(v) for k, v in sorted(f.structured_outputs.items())},
        }
        for f in module.__call__.concrete_functions
    ]
    used = {v.name: v for f in module.__call__.concrete_functions for v in f.graph.variables}
    variables = {n: [v.shape.as_list(), v.dtype.name, v.trainable] for n, v in used.items()}
    trained = sorted(v.name for v in module.trainable_variables_list)
    return {"calls": calls, "variables": dict(sorted(variables.items())), "trained": trained}


@functools.cache
def golden() -> dict[str, np.ndarray]:
    """Returns the values that the reference computes; see `golden/README.md`."""
    return dict(np.load(GOLDEN / "reference_r18.npz"))


def outputs(*, trainable: bool) -> dict[str, np.ndarray]:
    """Returns samples of the outputs of the reference's call for `images`, by their names."""
    prefix = f"outputs/{trainable}/"
    return {k.removeprefix(prefix): v for k, v in golden().items() if k.startswith(prefix)}


@tiny_runs.once
def folder(factory: pytest.TempPathFactory) -> pathlib.Path:
    """Returns a folder like a run of the reference: SavedModel, checkpoint and flags.json."""
    root = factory.mktemp("reference_r18")
    module = reference_format.reference_model(simclr.SimCLR(ARCHITECTURE, seed=0))
    for variable in module.variables:
        variable.assign(weights()[variable.name])
    tf.saved_model.save(module, str(root / "saved_model"))
    tree = tf.train.Checkpoint(**_tree())
    tree.write(str(root / "checkpoint" / "ckpt-975"))
    (root / "flags.json").write_text(json.dumps(FLAGS))
    return root


def _tree() -> dict[str, tf.train.Checkpoint | tf.Variable]:
    """Returns the weights as the reference's object checkpoint has them."""
    root: dict = {}
    for line in (GOLDEN / "names" / "r18_paths.txt").read_text().splitlines():
        path, name = line.split()
        *parents, leaf = path.removesuffix("/.ATTRIBUTES/VARIABLE_VALUE").split("/")
        node = root
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = tf.Variable(weights()[name])
    return {name: _tracked(node) for name, node in root.items()}


def _tracked(node: dict | tf.Variable) -> tf.train.Checkpoint | tf.Variable:
    if not isinstance(node, dict):
        return node
    return tf.train.Checkpoint(**{name: _tracked(child) for name, child in node.items()})
