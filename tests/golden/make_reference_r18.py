"""Writes reference_r18.npz, reference_r18.json and names/r18_paths.txt, from the reference's graph.

Usage, from the repository's folder, with the reference's data beside the clone (see README.md):
    PYTHONPATH=.:tests python tests/golden/make_reference_r18.py
"""

from __future__ import annotations

from collections.abc import Mapping
import json
import pathlib
from typing import Any

import numpy as np
import reference_r18
import tensorflow as tf

HERE = pathlib.Path(__file__).parent
REFERENCE = HERE.parents[2] / "shared" / "data" / "official_r18"


def main() -> None:
    """Checks the step against one of the reference's code, then writes the files."""
    loaded = tf.saved_model.load(str(REFERENCE / "saved_model"))
    variables = {v.name: v for f in loaded.__call__.concrete_functions for v in f.graph.variables}
    write_paths(variables)
    (HERE / "reference_r18.json").write_text(json.dumps(reference_r18.signature_of(loaded)) + "\n")
    given = np.load(REFERENCE / "step.npz")
    setting = {name: float(given[name]) for name in reference_r18.STEP}
    views = np.stack([given["view1"], given["view2"]], 1)
    computed = step(loaded, variables, views, given["labels"], **setting)
    check(computed, given)

    assign(variables)
    kept: dict[str, Any] = {}
    for trainable in (False, True):
        for name, value in loaded(reference_r18.images(), trainable=trainable).items():
            kept[f"outputs/{trainable}/{name}"] = reference_r18.sample(value, 256)
    for name, variable in variables.items():
        if "moving" in name:
            kept[f"averages/{name}"] = reference_r18.sample(variable, 32)
    assign(variables)
    batch = reference_r18.batch()
    for name, value in step(
        loaded, variables, batch["views"], batch["label"], **reference_r18.STEP
    ).items():
        if name.startswith("after/"):
            kept[f"step/{name}"] = reference_r18.sample(value).astype(np.float32)
            name, value = f"norm_{name}", np.linalg.norm(value)
        kept[f"step/{name}"] = value
    np.savez_compressed(HERE / "reference_r18.npz", **kept)


def assign(variables: Mapping[str, tf.Variable]) -> None:
    """Assigns the made-up weights to the reference's network."""
    made_up = reference_r18.weights()
    assert variables.keys() == made_up.keys()
    for name, variable in variables.items():
        variable.assign(made_up[name])


def step(
    loaded: Any,
    variables: Mapping[str, tf.Variable],
    views: np.ndarray,
    labels: np.ndarray,
    *,
    learning_rate: float,
    weight_decay: float,
    momentum: float,
    temperature: float,
) -> dict[str, Any]:
    """Returns loss, metrics and weights after one step.

    Network and gradient are those of the reference's graph; loss and LARS follow the papers'
    formulas, with a momentum that starts at zero.
    """
    del momentum
    n = len(views)
    trained = list(loaded.trainable_variables_list)
    kernel = next(v for v in trained if "head_supervised" in v.name and "kernel" in v.name)
    with tf.GradientTape() as tape:
        outputs = loaded(np.concatenate([views[:, 0], views[:, 1]]), trainable=True)
        z = tf.math.l2_normalize(outputs["proj_head_output"], -1)
        similar = z @ tf.transpose(z) / temperature  # (2n, 2n)
        others = tf.linalg.set_diag(similar, tf.fill([2 * n], -1e9))
        positives = tf.concat([tf.range(n) + n, tf.range(n)], 0)
        contrast = 2 * tf.reduce_mean(
            tf.nn.sparse_softmax_cross_entropy_with_logits(labels=positives, logits=others)
        )
        supervised = tf.reduce_mean(
            tf.nn.sparse_softmax_cross_entropy_with_logits(
                labels=np.tile(labels, 2).astype(np.int32), logits=outputs["logits_sup"]
            )
        )
        decay = weight_decay * tf.nn.l2_loss(kernel)
        total = contrast + supervised + decay
    across = similar[:n, n:]  # Of the first views to the second.
    p = tf.nn.softmax(across)
    computed = {
        "contrast_loss": contrast,
        "supervised_loss": supervised,
        "weight_decay_loss": decay,
        "total_loss": total,
        "contrast_acc": np.mean(np.argmax(across, 1) == np.arange(n)),
        "contrast_entropy": -tf.reduce_mean(tf.reduce_sum(p * tf.math.log(p + 1e-8), 1)),
    }
    computed = {name: np.float64(value) for name, value in computed.items()}
    for variable, gradient in zip(trained, tape.gradient(total, trained)):
        w, g = np.float64(variable), np.float64(gradient)
        rate = learning_rate
        if not any(word in variable.name for word in ("batch_norm", "bias", "head_supervised")):
            g = g + weight_decay * w
            rate *= 0.001 * np.linalg.norm(w) / np.linalg.norm(g)
        computed[f"after/{variable.name}"] = w - rate * g
    averages = {f"after/{k}": np.float64(v) for k, v in variables.items() if "moving" in k}
    return {**computed, **averages}


def check(computed: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Asserts that a step on the reference's batch gives what its training code computed."""
    for name, value in computed.items():
        if name.startswith("after/"):
            norm = np.linalg.norm(value)
            np.testing.assert_allclose(norm, given[f"norm_{name}"], rtol=1e-5, err_msg=name)
            if name in given:
                assert np.linalg.norm(value - given[name]) < 1e-5 * norm, name
        else:
            np.testing.assert_allclose(value, given[name], rtol=1e-5, err_msg=name)


def write_paths(variables: Mapping[str, tf.Variable]) -> None:
    """Pairs paths in the reference's checkpoint with names of variables, by their values."""
    reader = tf.train.load_checkpoint(str(REFERENCE / "checkpoint" / "ckpt-975"))
    by_value: dict[bytes, set[str]] = {}
    for name, variable in variables.items():
        by_value.setdefault(variable.numpy().tobytes(), set()).add(name.rsplit("/", 1)[0])
    layers: dict[str, set[str]] = {}
    paths = [p for p, shape in reader.get_variable_to_shape_map().items() if shape]
    for path in paths:  # Variables of two layers can be equal; then the others decide.
        parent = _layer(path)
        same = by_value[reader.get_tensor(path).tobytes()]
        layers[parent] = layers.get(parent, same) & same
    lines = []
    for path in sorted(paths):
        (layer,) = layers[_layer(path)]
        leaf = path.removesuffix("/.ATTRIBUTES/VARIABLE_VALUE").rsplit("/", 1)[1]
        lines.append(f"{path} {layer}/{leaf}:0\n")
    assert len(lines) == len(variables)
    (HERE / "names" / "r18_paths.txt").write_text("".join(lines))


def _layer(path: str) -> str:
    return path.removesuffix("/.ATTRIBUTES/VARIABLE_VALUE").rsplit("/", 1)[0]


if __name__ == "__main__":
    main()
