"""Maps variables to keys of `names.Weight`, and architectures to `networks.Network`."""

from __future__ import annotations

from collections.abc import Iterator

import tensorflow as tf

from simclr_tf import errors, keras_api
from simclr_tf.keras_api import keras
from simclr_tf.models import keras_encoders, resnet, simclr
from simclr_tf.reference import names, networks


def network_of(architecture: simclr.Architecture) -> networks.Network:
    """Returns the network that the reference builds for an architecture of this package.

    Raises:
        UserError: if the reference has no such network.
    """
    if architecture.encoder != keras_encoders.RESNET:
        raise errors.UserError(
            f"google-research/simclr has ResNets only; its format cannot represent "
            f"{architecture.encoder_name}."
        )
    if architecture.resnet_depth not in networks.BLOCKS:
        raise errors.UserError(
            f"google-research/simclr has no ResNet-{architecture.resnet_depth}, only "
            f"{', '.join(map(str, networks.BLOCKS))}; its format cannot represent this network."
        )
    if not architecture.proj_head_bn or architecture.normalize_features:
        raise errors.UserError(
            "google-research/simclr always has batch norm in its projection head and never "
            "normalises features; its format cannot represent a network without that batch norm or "
            "with normalised features."
        )
    return networks.Network(
        architecture.resnet_depth,
        architecture.width_multiplier,
        small_stem=architecture.stem == "small",
        sk_ratio=architecture.sk_ratio,
        se_ratio=architecture.se_ratio,
        head=architecture.proj_head_mode,
        head_layers=architecture.num_proj_layers,
        out_dim=architecture.proj_out_dim,
        classes=architecture.num_classes,
        stage=architecture.ft_proj_selector,
    )


def variables_of(model: simclr.SimCLR) -> dict[str, tf.Variable]:
    """Returns the variables of a model by the keys of `names.Weight`."""
    variables = {}
    for key, layer in _layers_of(model):
        # A strided convolution is a Sequential of padding and convolution.
        layer = layer.layers[-1] if isinstance(layer, keras.Sequential) else layer
        for leaf in names.LEAVES:
            variable = getattr(layer, leaf, None)
            if variable is not None:
                variables[f"{key}/{leaf}"] = keras_api.raw(variable)
    return variables


_Layers = Iterator[tuple[str, keras.layers.Layer]]


def _layers_of(model: simclr.SimCLR) -> _Layers:
    for key, layer in _stem(model.encoder):
        yield f"encoder/stem/{key}", layer
    for group, blocks in enumerate(model.encoder.groups, 1):
        for index, block in enumerate(blocks, 1):
            for key, layer in _block(block):
                yield f"encoder/group{group}/block{index}/{key}", layer
    head = model.projection_head
    yield from _pairs("projection_head/{}/dense", head.denses)
    yield from _pairs("projection_head/{}/norm", head.norms)
    if model.linear_head is not None:
        yield "linear_head/dense", model.linear_head.dense


def _pairs(pattern: str, layers: list[keras.layers.Layer]) -> _Layers:
    for index, layer in enumerate(layers):
        yield pattern.format(index), layer


def _stem(encoder: resnet.ResNet) -> _Layers:
    deep = getattr(encoder.stem_conv, "convs", None)
    convs = [encoder.stem_conv] if deep is None else list(deep)
    norms = [encoder.stem_norm] if deep is None else [*encoder.stem_conv.norms, encoder.stem_norm]
    yield from _pairs("{}/conv", convs)
    yield from _pairs("{}/norm", norms)


def _block(block: resnet.Block) -> _Layers:
    if block.projection is not None:
        yield "shortcut/conv", block.projection
        yield "shortcut/norm", block.projection_norm
    yield from _pairs("branch/{}/conv", block.convs)
    yield from _pairs("branch/{}/norm", block.norms)
    if block.mix is not None:
        yield "mix/reduce", block.mix.reduce
        yield "mix/norm", block.mix.norm
        yield "mix/expand", block.mix.expand
    if block.excite is not None:
        yield "excite/reduce", block.excite.reduce
        yield "excite/expand", block.excite.expand
