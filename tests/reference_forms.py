"""Writes networks of this program in each file form of google-research/simclr."""

import json
import pathlib

import numpy as np
import tensorflow as tf

from simclr_tf.models import simclr
from simclr_tf.reference import mapping, names

_HEAD = "model/supervised_head/linear_layer/dense/kernel/.ATTRIBUTES/VARIABLE_VALUE"


def architecture(depth=18, **changes):
    """Returns a network that the reference can build, for images of 32 pixels."""
    fields = {
        "resnet_depth": depth,
        "width_multiplier": 1,
        "stem": "imagenet",
        "image_size": 32,
        "proj_head_mode": "nonlinear",
        "num_proj_layers": 3,
        "proj_out_dim": 16,
        "ft_proj_selector": 0,
        "batch_norm_decay": 0.9,
        "class_names": None,
    }
    return simclr.Architecture(**{**fields, **changes})


def random_model(of, seed=0):
    """Returns a network whose variables are all random, so that no two are equal."""
    model = simclr.SimCLR(of, seed=seed)
    rng = np.random.default_rng(seed)
    for variable in model.variables:
        scale = 0.05 if len(variable.shape) > 1 else 0.3
        drawn = rng.normal(0.0, scale, variable.shape)
        variable.assign(np.abs(drawn) + 0.5 if "variance" in variable.name else drawn)
    return model


def write_tf1(model, prefix, *, slots=False, without=()):
    """Writes a name-based checkpoint: `slots` adds momenta, `without` omits weights."""
    values = _values(model, "tf1", without)
    if slots:
        values |= {f"{name}/LARSOptimizer": value for name, value in values.items()}
        values["global_step"] = np.int64(7)
    pathlib.Path(prefix).parent.mkdir(parents=True, exist_ok=True)
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=list(values),
        shape_and_slices=[""] * len(values),
        tensors=[tf.constant(value) for value in values.values()],
    )


def write_checkpoint(model, prefix, *, without=()):
    """Writes an object checkpoint; `without` omits weights."""
    tree = {}
    variables = _variables(model, without)
    for path, variable in variables.items():
        *parents, leaf = path.removesuffix("/.ATTRIBUTES/VARIABLE_VALUE").split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = variable
    _tracked(tree).write(str(prefix))


def write_saved_model(model, folder, *, flags=None):
    """Writes a SavedModel, and flags.json beside it if there are `flags`.

    Its graph has only the operations that the reader looks for: 2x2 average pooling if shortcuts
    pool, and as many dense layers before the linear head as in the reference.
    """
    saved, variables = tf.Module(), _variables(model)
    # A list, as in the reference's Keras: only their names identify the variables.
    saved.variables_in_a_list = list(variables.values())
    kernels = [v for path, v in variables.items() if "linear_layers" in path and "kernel" in path]

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3])])
    def call(images):
        if model.architecture.sk_ratio:
            images = tf.nn.avg_pool2d(images, 2, 1, "SAME")
        x = tf.reduce_mean(images, [1, 2])[:, :1] + tf.zeros([model.encoder.num_features])
        for kernel in kernels[: model.projection_head.stage(model.architecture.ft_proj_selector)]:
            x = x @ kernel
        with tf.name_scope("head_supervised"):
            return {"logits_sup": x @ variables[_HEAD]} if _HEAD in variables else {"x": x}

    saved.__call__ = call
    tf.saved_model.save(saved, str(folder))
    if flags is not None:
        (pathlib.Path(folder).parent / "flags.json").write_text(json.dumps(flags))


WRITERS = {
    "tf1": lambda model, folder: write_tf1(model, folder / "model.ckpt-7"),
    "path": lambda model, folder: write_checkpoint(model, folder / "ckpt-7"),
    "variable": lambda model, folder: write_saved_model(model, folder / "saved_model" / "7"),
}


def _weights(model, without=()):
    weights = names.weights_of(mapping.network_of(model.architecture))
    return [weight for weight in weights if weight.key not in without]


def _values(model, form, without):
    variables = mapping.variables_of(model)
    return {w.name(form): variables[w.key].numpy() for w in _weights(model, without)}


def _variables(model, without=()):
    """Returns copies of the variables, named as in TF2, by their paths."""
    variables = mapping.variables_of(model)
    return {
        w.path: tf.Variable(variables[w.key].numpy(), name=w.variable)
        for w in _weights(model, without)
    }


def _tracked(tree):
    children = {
        name: _tracked(node) if isinstance(node, dict) else node for name, node in tree.items()
    }
    return tf.train.Checkpoint(**children)
