"""The architecture of a network, told by the names and shapes of its weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
import dataclasses
import functools
import math
import re
from typing import Any

from simclr_tf import errors
from simclr_tf.reference import files, names, networks

_Shapes = Mapping[str, tuple[int, ...]]
# What SimCLRv2 uses, taken wherever it fits the widths that are there.
_USUAL_RATIO = 0.0625
_SHOWN = 3
# How much of a network must be there to take it for a damaged one and not for a foreign one.
_RECOGNISED = 0.5


@dataclasses.dataclass(frozen=True)
class Reading:
    """What weights say of their network.

    Attributes:
        network: inferred.
        names: the stored name of each weight that is there, by `names.Weight.key`.
        lacking: keys of the weights of the heads that are missing or have another shape.
        unused: stored names that the network has no place for.
    """

    network: networks.Network
    names: Mapping[str, str]
    lacking: tuple[str, ...]
    unused: tuple[str, ...]


def infer(stored: files.Stored) -> Reading:
    """Infers the network whose weights are stored.

    Args:
        stored: weights of any of the three forms.

    Raises:
        UserError: if the encoder is not whole, or has shapes that no network has.
    """
    network = _encoder(stored)
    network = dataclasses.replace(network, **_heads(stored))
    expected = names.weights_of(network)
    called = files.canonical(stored.form, [weight.name(stored.form) for weight in expected])
    by_key = {weight.key: called[weight.name(stored.form)] for weight in expected}
    _check_encoder(stored, network, expected, by_key)
    there = {
        weight.key: by_key[weight.key]
        for weight in expected
        if stored.shapes.get(by_key[weight.key]) == weight.shape
    }
    return Reading(
        network,
        there,
        lacking=tuple(key for key in by_key if key not in there),
        unused=tuple(sorted(set(stored.shapes) - set(there.values()))),
    )


def describe(network: networks.Network) -> str:
    """Returns the encoder in words, such as "ResNet-50 2x with sk_ratio 0.0625"."""
    told = f"ResNet-{network.depth} {network.width}x"
    ratios = [
        f"{name} {getattr(network, name):g}"
        for name in ("sk_ratio", "se_ratio")
        if getattr(network, name)
    ]
    return f"{told} with {' and '.join(ratios)}" if ratios else told


@functools.cache
def _encoder_names(network: networks.Network, form: str) -> Mapping[str, str]:
    """Returns the canonical name of each weight of an encoder, by key."""
    weights = [w for w in names.weights_of(network) if w.part == "encoder"]
    called = files.canonical(form, [weight.name(form) for weight in weights])
    return {weight.key: called[weight.name(form)] for weight in weights}


def _encoder(stored: files.Stored) -> networks.Network:
    """Finds the network whose names are there, then its widths."""
    given = {name for name in stored.shapes if name.startswith(_encoder_prefix(stored.form))}
    candidates = [
        networks.Network(depth, small_stem=small, sk_ratio=sk, se_ratio=se, head="none")
        for depth in networks.BLOCKS
        for small, sk in ((False, 0.0), (True, _USUAL_RATIO), (False, _USUAL_RATIO))
        for se in (0.0, _USUAL_RATIO)
    ]
    distance = {
        network: len(given ^ set(_encoder_names(network, stored.form).values()))
        for network in candidates
    }
    network = min(candidates, key=distance.__getitem__)
    if distance[network] > _RECOGNISED * len(given):
        raise errors.UserError(
            f"{stored.origin} holds no network of google-research/simclr: among its "
            f"{len(given)} weights with such names, {distance[network]} differ from those of a "
            f"ResNet-{network.depth}, which is nearest; name another checkpoint."
        )
    network = _with_pools(stored, network)
    return _with_widths(stored, network)


def _encoder_prefix(form: str) -> str:
    return {"tf1": "base_model/", "variable": "resnet/", "path": "model/resnet_model/"}[form]


def _with_pools(stored: files.Stored, network: networks.Network) -> networks.Network:
    """Decides where names leave open whether shortcuts are ResNet-D's: in small basic networks."""
    if network.bottleneck or network.sk_ratio:
        return network
    asked = stored.flags.get("sk_ratio", 0.0) if _flags_fit(stored.flags, network) else 0.0
    pools = stored.graph.pools if stored.graph is not None else asked > 0
    if not pools or _size_of_stem(stored, network) == 7:
        return network
    return dataclasses.replace(network, small_stem=True, sk_ratio=_USUAL_RATIO)


def _flags_fit(flags: Mapping[str, object], network: networks.Network) -> bool:
    return flags.get("resnet_depth") == network.depth


def _size_of_stem(stored: files.Stored, network: networks.Network) -> int:
    called = _encoder_names(network, stored.form)["encoder/stem/0/conv/kernel"]
    return (stored.shapes.get(called) or (7,))[0]


def _with_widths(stored: files.Stored, network: networks.Network) -> networks.Network:
    called = _encoder_names(network, stored.form)
    shapes = {key: shape for key, name in called.items() if (shape := stored.shapes.get(name))}
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
        ratio = _ratio(middles, networks.selected)
        network = dataclasses.replace(network, sk_ratio=ratio)
    if network.se_ratio:
        middles = _middles(shapes, "excite/reduce", network)
        network = dataclasses.replace(network, se_ratio=_ratio(middles, networks.squeezed))
    return network


def _middles(shapes: _Shapes, layer: str, network: networks.Network) -> dict[int, int]:
    """Returns the width of the middle layers of channel attention, by filters of the block."""
    middles = {}
    for key, shape in shapes.items():
        match = re.fullmatch(rf"encoder/group(\d)/block\d+/{layer}/kernel", key)
        if match:
            middles[64 * network.width * 2 ** (int(match[1]) - 1)] = shape[-1]
    return middles


def _ratio(middles: Mapping[int, int], width: Callable[[int, float], int]) -> float:
    """Returns the simplest ratio that gives these widths: the usual one, or fewest decimals."""

    def fits(ratio: float) -> bool:
        return all(width(filters, ratio) == middle for filters, middle in middles.items())

    if fits(_USUAL_RATIO):
        return _USUAL_RATIO
    # The widest block tells most: the width there is this share, or was rounded down to it.
    low = middles[max(middles)] / max(middles)
    return next((value for value in _simple(low) if value > 0 and fits(value)), low)


def _simple(low: float) -> Iterable[float]:
    """Yields the numbers of one decimal, then two, ... nearest to `low` on both sides."""
    for decimals in range(1, 8):
        scaled = low * 10**decimals
        yield math.floor(scaled) / 10**decimals
        yield math.ceil(scaled) / 10**decimals


def _heads(stored: files.Stored) -> dict[str, Any]:
    """Returns what the names and shapes say of the projection head and the linear head."""
    projection: dict[int, tuple[int, ...]] = {}
    linear, classes_from = False, None
    for name, shape in stored.shapes.items():
        if len(shape) != 2:
            continue
        match = re.search(r"(?:head_contrastive|projection_head)/(n?l)_(\d+)/dense", name)
        match = match or re.search(r"_projection_head/(linear_layers)/(\d+)/dense/kernel", name)
        if match:
            projection[int(match[2])] = shape
            linear = linear or match[1] == "l"
        if re.search(r"(head_supervised|supervised_head)/.*kernel$", name):
            classes_from = shape
    told: dict[str, Any] = {"head": "none", "head_layers": 1}
    if projection:
        count = max(projection) + 1
        kind = "linear" if linear else "nonlinear"
        told = {"head": kind, "head_layers": count, "out_dim": projection[count - 1][-1]}
    if classes_from is not None:
        told |= {"classes": classes_from[1], "stage": 0}
        if projection and classes_from[0] == told["out_dim"] != projection[max(projection)][0]:
            told["stage"] = -1
    return told


def _check_encoder(
    stored: files.Stored,
    network: networks.Network,
    expected: tuple[names.Weight, ...],
    by_key: Mapping[str, str],
) -> None:
    """Refuses an encoder that is not whole or that no network has."""
    encoder = [weight for weight in expected if weight.part == "encoder"]
    missing = [_told(w, stored.form) for w in encoder if by_key[w.key] not in stored.shapes]
    if missing:
        raise errors.UserError(
            f"The encoder in {stored.origin} is not whole: of the {len(encoder)} weights of a "
            f"{describe(network)} it lacks {len(missing)} ({_some(missing)}); name a checkpoint "
            "that holds all of them."
        )
    wrong = [
        f"{_told(w, stored.form)} has the shape {stored.shapes[by_key[w.key]]} and not {w.shape}"
        for w in encoder
        if stored.shapes[by_key[w.key]] != w.shape
    ]
    if wrong:
        raise errors.UserError(
            f"The encoder in {stored.origin} is no {describe(network)}, which is nearest: "
            f"{_some(wrong)}; name a checkpoint that google-research/simclr wrote."
        )


def _told(weight: names.Weight, form: str) -> str:
    return weight.name(form).removesuffix("/.ATTRIBUTES/VARIABLE_VALUE")


def _some(items: list[str]) -> str:
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return ", ".join(items[:_SHOWN]) + more
