"""The same step: from google-research/simclr's weights, on its views, to its weights."""

import collections
import re

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf import config, distribute
from simclr_tf.models import simclr
from simclr_tf.training import objectives, optimizers, steps

_BLOCK = re.compile(
    r"residual_block(?:_(\d+))?/(?:conv2d_fixed_padding|batch_norm_relu)(?:_(\d+))?/"
)
_OUTPUTS = {"features": "final_avg_pool", "projection": "proj_head_output", "logits": "logits_sup"}


class _Names:
    """Finds our variable for each name of the reference's ResNet-18."""

    def __init__(self, model, names):
        self._layers = {}
        self._add("stem", model.encoder.stem_conv, model.encoder.stem_norm)
        blocks = [block for group in model.encoder.groups for block in group]
        for number, block in enumerate(blocks):
            pairs = list(zip(block.convs, block.norms))
            if block.projection is not None:
                pairs.insert(0, (block.projection, block.projection_norm))
            for place, pair in enumerate(pairs):
                self._add(f"block{number}/{place}", *pair)
        head = model.projection_head
        for number, pair in enumerate(zip(head.denses, head.norms)):
            self._add(f"projection{number}", *pair)
        self._add("linear", model.linear_head.dense, None)
        # The reference counts layers through the whole network; within a block the order counts.
        self._places = collections.defaultdict(set)
        for name in names:
            found = _BLOCK.search(name)
            if found:
                self._places[int(found[1] or 0)].add(int(found[2] or 0))

    def _add(self, key, conv, norm):
        self._layers[key] = (conv.layers[-1] if hasattr(conv, "layers") else conv, norm)

    def __getitem__(self, name):
        leaf = name.split("/")[-1].split(":")[0]
        conv, norm = self._layers[self._key(name)]
        return getattr(norm if "batch_norm" in name else conv, leaf)

    def _key(self, name):
        block = _BLOCK.search(name)
        if block:
            number, layer = int(block[1] or 0), int(block[2] or 0)
            return f"block{number}/{sorted(self._places[number]).index(layer)}"
        projection = re.search(r"/nl_(\d)/", name)
        if projection:
            return f"projection{projection[1]}"
        return "linear" if "head_supervised" in name else "stem"


@pytest.fixture(scope="module")
def reference(shared):
    """Our network with the reference's weights, and what the reference made of them."""
    folder = shared / "data" / "official_r18"
    loaded = tf.saved_model.load(str(folder / "saved_model"))
    theirs = {v.name: v for f in loaded.__call__.concrete_functions for v in f.graph.variables}
    step = dict(np.load(folder / "step.npz"))
    model = simclr.SimCLR(
        simclr.Architecture(
            resnet_depth=18,
            width_multiplier=1,
            stem="small",
            image_size=16,
            proj_head_mode="nonlinear",
            num_proj_layers=3,
            proj_out_dim=128,
            ft_proj_selector=0,
            batch_norm_decay=0.9,
            class_names=tuple("abcdefghij"),
        ),
        seed=0,
    )
    names = [name.removeprefix("norm_after/") for name in step if name.startswith("norm_after/")]
    ours = _Names(model, names)
    assert len(names) == len(model.variables)
    for name in names:
        ours[name].assign(theirs[name])
    return model, ours, names, step, dict(np.load(folder / "outputs.npz"))


def test_the_network_is_the_references_and_so_is_one_step(reference):
    model, ours, names, step, outputs = reference
    for name, value in model(outputs["images"]).items():
        np.testing.assert_allclose(value, outputs[_OUTPUTS[name]], rtol=1e-4, atol=1e-4)

    run = config.Config(
        optimizer="lars",
        weight_decay=float(step["weight_decay"]),
        momentum=float(step["momentum"]),
    )
    variables = model.trainable_variables
    optimizer = optimizers.make_optimizer(run, model, variables, float(step["learning_rate"]))
    learner = steps.Learner(
        model, optimizer, variables, optimizers.decay_in_loss(run, model), run.weight_decay
    )
    temperature = float(step["temperature"])
    objective = objectives.make_objective(config.Config(temperature=temperature))
    task = steps.contrastive_task(
        model, objective, temperature=temperature, hidden_norm=True, labelled=True
    )
    here = distribute.Replicas(tf.distribute.get_strategy())
    views = tf.stack([step["view1"], step["view2"]], 1)  # (b, v, h, w, 3)
    batch = {"views": views, "label": tf.constant(step["labels"], tf.int32)}
    metrics = steps.whole_step(learner, task).run(here, batch)

    for name, theirs in {
        "train/contrast_loss": step["contrast_loss"] / 2,  # Theirs is a sum of two sides.
        "train/contrast_acc": step["contrast_acc"],
        "train/contrast_entropy": step["contrast_entropy"],
        "train/supervised_loss": step["supervised_loss"],
        "train/weight_decay": step["weight_decay_loss"],
        "train/total_loss": step["total_loss"],
    }.items():
        assert float(metrics[name]) == pytest.approx(float(theirs), rel=1e-4), name
    for name in names:
        new = ours[name].numpy().astype(np.float64)
        assert np.linalg.norm(new) == pytest.approx(float(step[f"norm_after/{name}"]), rel=1e-4)
        if f"after/{name}" in step:
            want = step[f"after/{name}"]
            np.testing.assert_allclose(new, want, rtol=1e-4, atol=1e-4 * np.abs(want).max())
