"""Infers the architecture of a network from the names and shapes of its weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
import dataclasses
import functools
import math
import re
from typing import Any

from simclr_tf import errors, text
from simclr_tf.models import channel_attention
from simclr_tf.reference import files, names, networks

_Shapes = Mapping[str, tuple[int, ...]]
# The ratio of SimCLRv2, preferred if the stored widths are consistent with it.
_USUAL_RATIO = 0.0625
# Weights are those of another program if more than this fraction of names differs.
_MAX_DIFFERENT = 0.5


@dataclasses.dataclass(frozen=True)
class Inferred:
    """A network inferred from stored weights.

    Attributes:
        network: the network.
        names: the stored name of each of its weights that is stored, by `names.Weight.key`.
        lacking: keys of the weights of the heads that are missing or have another shape.
        unused: stored names of weights that the network does not have.
    """

    network: networks.Network
    names: Mapping[str, str]
    lacking: tuple[str, ...]
    unused: tuple[str, ...]


def infer(stored: files.Stored) -> Inferred:
    """Infers the network whose weights are stored.

    Args:
        stored: weights of any of the three forms.

    Returns:
        The network, and which of its weights are stored.

    Raises:
        UserError: if weights of the encoder are missing or have unexpected shapes.
    """
    network = _encoder(stored)
    network = dataclasses.replace(network, **_heads(stored))
    expected = names.weights_of(network)
    canonical = files.canonical(stored.form, [weight.name(stored.form) for weight in expected])
    by_key = {weight.key: canonical[weight.name(stored.form)] for weight in expected}
    _check_encoder(stored, network, expected, by_key)
    matching = {
        weight.key: by_key[weight.key]
        for weight in expected
        if stored.shapes.get(by_key[weight.key]) == weight.shape
    }
    return Inferred(
        network,
        matching,
        lacking=tuple(key for key in by_key if key not in matching),
        unused=tuple(sorted(set(stored.shapes) - set(matching.values()))),
    )


def describe(network: networks.Network) -> str:
    """Returns a description of the encoder, such as "ResNet-50 2x with sk_ratio 0.0625"."""
    encoder = f"ResNet-{network.depth} {network.width}x"
    ratios = [
        f"{name} {getattr(network, name):g}"
        for name in ("sk_ratio", "se_ratio")
        if getattr(network, name)
    ]
    return f"{encoder} with {' and '.join(ratios)}" if ratios else encoder


@functools.cache
def _encoder_names(network: networks.Network, form: str) -> Mapping[str, str]:
    """Returns the canonical name of each weight of an encoder, by key."""
    weights = [w for w in names.weights_of(network) if w.part == "encoder"]
    canonical = files.canonical(form, [weight.name(form) for weight in weights])
    return {weight.key: canonical[weight.name(form)] for weight in weights}


def _encoder(stored: files.Stored) -> networks.Network:
    """Returns the network whose names are nearest to the stored ones, with the stored widths."""
    prefix = _encoder_prefix(stored.form)
    stored_names = {name for name in stored.shapes if name.startswith(prefix)}
    candidates = [
        networks.Network(depth, small_stem=small, sk_ratio=sk, se_ratio=se, head="none")
        for depth in networks.BLOCKS
        for small, sk in ((False, 0.0), (True, _USUAL_RATIO), (False, _USUAL_RATIO))
        for se in (0.0, _USUAL_RATIO)
    ]
    distance = {
        network: len(stored_names ^ set(_encoder_names(network, stored.form).values()))
        for network in candidates
    }
    network = min(candidates, key=distance.__getitem__)
    if distance[network] > _MAX_DIFFERENT * len(stored_names):
        raise errors.UserError(
            f"{stored.origin} does not contain a network of google-research/simclr: "
            f"{distance[network]} names differ between its {len(stored_names)} weights and those "
            f"of the nearest network, a ResNet-{network.depth}; name another checkpoint."
        )
    network = _with_pools(stored, network)
    return _with_widths(stored, network)


def _encoder_prefix(form: str) -> str:
    return {"tf1": "base_model/", "variable": "resnet/", "path": "model/resnet_model/"}[form]


def _with_pools(stored: files.Stored, network: networks.Network) -> networks.Network:
    """Infers whether shortcuts are those of ResNet-D in networks of basic blocks with a small stem.

    Their names and shapes are the same either way, so the graph or the flags determine it.
    """
    if network.bottleneck or network.sk_ratio:
        return network
    sk_ratio = stored.flags.get("sk_ratio", 0.0) if _flags_fit(stored.flags, network) else 0.0
    pools = stored.graph.pools if stored.graph is not None else sk_ratio > 0
    if not pools or _size_of_stem(stored, network) == 7:
        return network
    return dataclasses.replace(network, small_stem=True, sk_ratio=_USUAL_RATIO)


def _flags_fit(flags: Mapping[str, object], network: networks.Network) -> bool:
    return flags.get("resnet_depth") == network.depth


def _size_of_stem(stored: files.Stored, network: networks.Network) -> int:
    name = _encoder_names(network, stored.form)["encoder/stem/0/conv/kernel"]
    return (stored.shapes.get(name) or (7,))[0]


def _with_widths(stored: files.Stored, network: networks.Network) -> networks.Network:
    by_key = _encoder_names(network, stored.form)
    shapes = {key: shape for key, name in by_key.items() if (shape := stored.shapes.get(name))}
    small = network.small_stem or (_size_of_stem(stored, network) == 3 and not network.sk_ratio)
    widths = [shape[-1] for key, shape in shapes.items() if key.startswith("encoder/stem/")]
    widths += [
        shape[-1] // (4 if network.bottleneck else 1)
        for key, shape in shapes.items()
        if key.startswith("encoder/group1/") and "/shortcut/" in key
    ]
    base = max(widths, default=64)
    network = dataclasses.replace(network, small_stem=small, width=max(1, round(base / 64)))
    if network.sk_ratio and network.bottleneck:
        middles = _middles(shapes, "mix/reduce", network)
        ratio = _ratio(middles, channel_attention.selective_kernel_width)
        network = dataclasses.replace(network, sk_ratio=ratio)
    if network.se_ratio:
        middles = _middles(shapes, "excite/reduce", network)
        network = dataclasses.replace(
            network, se_ratio=_ratio(middles, channel_attention.squeeze_excitation_width)
        )
    return network


def _middles(shapes: _Shapes, layer: str, network: networks.Network) -> dict[int, int]:
    """Returns the widths of the middle layers of channel attention, by filters of the block."""
    middles = {}
    for key, shape in shapes.items():
        match = re.fullmatch(rf"encoder/group(\d)/block\d+/{layer}/kernel", key)
        if match:
            middles[64 * network.width * 2 ** (int(match[1]) - 1)] = shape[-1]
    return middles


def _ratio(middles: Mapping[int, int], width: Callable[[int, float], int]) -> float:
    """Returns the usual ratio, or that with fewest decimals, which results in these widths."""

    def fits(ratio: float) -> bool:
        return all(width(filters, ratio) == middle for filters, middle in middles.items())

    if fits(_USUAL_RATIO):
        return _USUAL_RATIO
    # The widest block limits the ratio most closely; its width was rounded down.
    low = middles[max(middles)] / max(middles)
    return next((value for value in _simple(low) if value > 0 and fits(value)), low)


def _simple(low: float) -> Iterable[float]:
    """Yields the numbers of one decimal, then two, ... nearest to `low` on both sides."""
    for decimals in range(1, 8):
        scaled = low * 10**decimals
        yield math.floor(scaled) / 10**decimals
        yield math.ceil(scaled) / 10**decimals


def _heads(stored: files.Stored) -> dict[str, Any]:
    """Returns the fields of a network for its heads, inferred from the names and shapes."""
    projection: dict[int, tuple[int, ...]] = {}
    linear, linear_head = False, None
    for name, shape in stored.shapes.items():
        if len(shape) != 2:
            continue
        match = re.search(r"(?:head_contrastive|projection_head)/(n?l)_(\d+)/dense", name)
        match = match or re.search(r"_projection_head/(linear_layers)/(\d+)/dense/kernel", name)
        if match:
            projection[int(match[2])] = shape
            linear = linear or match[1] == "l"
        if re.search(r"(head_supervised|supervised_head)/.*kernel$", name):
            linear_head = shape
    fields: dict[str, Any] = {"head": "none", "head_layers": 1}
    if projection:
        count = max(projection) + 1
        kind = "linear" if linear else "nonlinear"
        fields = {"head": kind, "head_layers": count, "out_dim": projection[count - 1][-1]}
    if linear_head is not None:
        fields |= {"classes": linear_head[1], "stage": 0}
        if projection and linear_head[0] == fields["out_dim"] != projection[max(projection)][0]:
            fields["stage"] = -1
    return fields


def _check_encoder(
    stored: files.Stored,
    network: networks.Network,
    expected: tuple[names.Weight, ...],
    by_key: Mapping[str, str],
) -> None:
    """Raises UserError if weights of the encoder are missing or have other shapes."""
    encoder = [weight for weight in expected if weight.part == "encoder"]
    missing = [_short_name(w, stored.form) for w in encoder if by_key[w.key] not in stored.shapes]
    if missing:
        raise errors.UserError(
            f"The encoder in {stored.origin} is incomplete: of the {len(encoder)} weights of a "
            f"{describe(network)} it lacks {len(missing)} ({text.shortened(missing)}); name a "
            "checkpoint that contains all of them."
        )
    wrong = [
        f"{_short_name(w, stored.form)} has the shape {stored.shapes[by_key[w.key]]} instead of "
        f"{w.shape}"
        for w in encoder
        if stored.shapes[by_key[w.key]] != w.shape
    ]
    if wrong:
        raise errors.UserError(
            f"The encoder in {stored.origin} is not a {describe(network)}, the nearest network: "
            f"{text.shortened(wrong)}; name a checkpoint that google-research/simclr wrote."
        )


def _short_name(weight: names.Weight, form: str) -> str:
    return weight.name(form).removesuffix(names.VALUE_SUFFIX)
