"""Architectures are inferred from names and shapes of weights, without building networks."""

import dataclasses
import itertools
import random
import re
from typing import Any

import pytest

from simclr_tf import errors
from simclr_tf.reference import files, graphs, inference, names, networks

HEADS: tuple[dict[str, Any], ...] = (
    {"head": "none"},
    {"head": "nonlinear", "head_layers": 2, "out_dim": 64},
    {"head": "nonlinear", "head_layers": 3, "out_dim": 128, "classes": 1000},
    {"head": "nonlinear", "head_layers": 4, "out_dim": 96, "classes": 5, "stage": -1},
)


def stored_of(network, form, *, without=(), graph=None, flags=None, change=lambda name: name):
    """Returns what a file with the weights of a network contains."""
    shapes = {change(w.name(form)): w.shape for w in names.weights_of(network)}
    canonical = files.canonical(form, shapes)
    shapes = {
        canonical[name]: shape for name, shape in shapes.items() if canonical[name] not in without
    }
    return files.Stored("somewhere", "", form, shapes, (), (), graph, flags or {}, {}, None)


def every_network():
    """Yields depth x width x attention x stem, each with one of the heads."""
    heads = itertools.cycle(HEADS)
    ratios = ((0.0, 0.0), (0.0625, 0.0), (0.1, 0.0), (0.0, 0.25), (0.25, 0.0625))
    for depth, width, (sk, se), small in itertools.product(
        networks.BLOCKS, (1, 2, 3), ratios, (False, True)
    ):
        if depth < 50 and sk:
            sk = 0.0625  # Weights of basic blocks do not depend on the ratio.
        yield networks.Network(depth, width, small, sk, se, **next(heads))


def test_networks_are_inferred_from_names_and_shapes():
    forms = itertools.cycle(names.FORMS)
    count = 0
    for count, (network, form) in enumerate(zip(every_network(), forms), 1):  # noqa: B007
        graph = graphs.GraphInfo(pools=network.sk_ratio > 0, stage=None)
        inferred = inference.infer(stored_of(network, form, graph=graph))
        assert inferred.lacking == inferred.unused == ()
        result = inferred.network
        fields = {name: getattr(network, name) for name in ("head_layers", "out_dim")}
        if network.head == "none":
            result = dataclasses.replace(result, **fields)
        if network.sk_ratio == 0.1 and network.width == 1 and network.depth < 50:
            result = dataclasses.replace(result, sk_ratio=0.1)
        assert result == network
    assert count == 180


def test_the_graph_or_flags_determine_settings_that_the_weights_do_not():
    network = networks.Network(34, 2, small_stem=True, sk_ratio=0.0625)
    for form in ("tf1", "variable"):
        assert inference.infer(stored_of(network, form)).network.sk_ratio == 0
        for known in (
            {"graph": graphs.GraphInfo(pools=True, stage=None)},
            {"flags": {"resnet_depth": 34, "sk_ratio": 0.25}},
        ):
            assert inference.infer(stored_of(network, form, **known)).network == network
    other_run = {"flags": {"resnet_depth": 50, "sk_ratio": 0.25}}
    assert inference.infer(stored_of(network, form, **other_run)).network.sk_ratio == 0
    # The path of a shortcut depends on the ratio.
    assert inference.infer(stored_of(network, "path")).network == network


@pytest.mark.parametrize("form", ["tf1", "variable"])
def test_numbering_and_local_batch_norm_do_not_matter(form):
    counted = re.compile(
        r"\b(conv2d\w*?|\w*normalization|batch_norm_relu|\w+_block|s\w__\w+?)(_\d+)?/"
    )

    def later(name):
        if "base_model" in name or "resnet" in name:
            name = counted.sub(lambda m: f"{m[1]}_{int((m[2] or '_0')[1:]) + 53}/", name)
        return re.sub(r"^(resnet|projection_head)/", r"\1_1/", name).replace("sync_", "")

    network = networks.Network(18, sk_ratio=0.0625, se_ratio=0.25, classes=7)
    inferred = inference.infer(stored_of(network, form, change=later))
    assert inferred.network == network and inferred.lacking == inferred.unused == ()


@pytest.mark.parametrize("form", names.FORMS)
def test_an_incomplete_encoder_is_rejected_with_a_list_of_missing_weights(form):
    network = networks.Network(34, se_ratio=0.25, classes=7)
    weights = [w for w in names.weights_of(network) if w.part == "encoder"]
    canonical = files.canonical(form, [w.name(form) for w in names.weights_of(network)])
    missing = [canonical[w.name(form)] for w in random.Random(0).sample(weights, 2)]
    with pytest.raises(
        errors.UserError, match=r"incomplete: of the 2\d+ .* ResNet-34 1x .* lacks 2"
    ):
        inference.infer(stored_of(network, form, without=missing))


def test_other_shapes_and_other_networks_are_rejected():
    stored = stored_of(networks.Network(50, 2), "tf1")
    stored.shapes["base_model/conv2d_7/kernel"] = (3, 3, 128, 130)
    wanted = r"conv2d_7/kernel has the shape \(3, 3, 128, 130\) instead of \(1, 1, 128, 512\)"
    with pytest.raises(errors.UserError, match=f"is not a ResNet-50 2x.*{wanted}"):
        inference.infer(stored)
    shapes = {f"base_model/other_{number}/kernel": (3, 3) for number in range(20)}
    other = dataclasses.replace(stored, shapes=shapes)
    with pytest.raises(
        errors.UserError, match="does not contain a network of google-research/simclr"
    ):
        inference.infer(other)


def test_incomplete_heads_are_reported():
    network = networks.Network(18, classes=3)
    inferred = inference.infer(
        stored_of(network, "tf1", without=["head_contrastive/nl_1/batch_normalization_0/gamma"])
    )
    assert inferred.network == network
    assert inferred.lacking == ("projection_head/1/norm/gamma",)
