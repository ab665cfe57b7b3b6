"""Parses weights of google-research/simclr into an architecture, and loads them into a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

from simclr_tf import config as config_lib
from simclr_tf import text
from simclr_tf.models import simclr
from simclr_tf.reference import files, inference, mapping, names, networks

# Usual image sizes, of networks with the stem that keeps the resolution and of the others.
_SMALL, _LARGE = 32, 224


@dataclasses.dataclass(frozen=True)
class ReferenceWeights:
    """Weights of google-research/simclr, parsed.

    Attributes:
        stored: the files.
        inferred: the network, as inferred from names and shapes.
        architecture: the network, as an architecture of this package.
        assumed: settings that neither the weights nor flags.json contain, with the values assumed
            for them, such as "image_size 224".
    """

    stored: files.Stored
    inferred: inference.Inferred
    architecture: simclr.Architecture
    assumed: tuple[str, ...]

    @property
    def description(self) -> str:
        """A short description: "TF2 SavedModel of google-research/simclr, ResNet-50 1x"."""
        encoder = inference.describe(self.inferred.network)
        return f"{self.stored.kind} of google-research/simclr, {encoder}"


def find(path: str) -> ReferenceWeights | None:
    """Finds and parses weights of google-research/simclr.

    Args:
        path: see `files.find`.

    Returns:
        The weights; None if no variable at the path has the reference's names.

    Raises:
        UserError: if they are damaged or incomplete, or no network has such weights.
    """
    stored = files.find(path)
    if stored is None:
        return None
    inferred = inference.infer(stored)
    flags = stored.flags
    if flags.get("resnet_depth") != inferred.network.depth:
        flags = {}  # They belong to another run.
    architecture, assumed = _architecture(stored, _complete(inferred), flags)
    return ReferenceWeights(stored, inferred, architecture, assumed)


def _complete(inferred: inference.Inferred) -> networks.Network:
    """Returns the network without the heads that lack variables."""
    network, lacking = inferred.network, " ".join(inferred.lacking)
    if "projection_head/" in lacking:
        network = dataclasses.replace(network, head="none", stage=0)
    if "linear_head/" in lacking:
        network = dataclasses.replace(network, classes=None)
    return network


def _architecture(
    stored: files.Stored, network: networks.Network, flags: Mapping[str, Any]
) -> tuple[simclr.Architecture, tuple[str, ...]]:
    """Combines what weights, graph and flags contain, and assumes usual values for the rest."""
    assumed = []

    def flag_or(name: str, usual: Any) -> Any:
        if name in flags:
            return flags[name]
        assumed.append(f"{name} {usual}")
        return usual

    side = flag_or("image_size", _SMALL if network.small_stem else _LARGE)
    momentum = flag_or("batch_norm_decay", config_lib.Config.batch_norm_decay)
    stage = network.stage
    if stored.graph is not None and stored.graph.stage is not None:
        stage = stored.graph.stage
    elif network.classes is not None and network.num_head_layers and not stage:
        stage = flag_or("ft_proj_selector", 0)
    pooling_known = stored.form == "path" or stored.graph is not None or "sk_ratio" in flags
    if network.small_stem and not network.bottleneck and not pooling_known:
        assumed.append("sk_ratio 0, which leaves no trace in these weights")
    if network.classes is not None:
        assumed.append(f"its {network.classes} classes in the order of your data's")
    return (
        simclr.Architecture(
            resnet_depth=network.depth,
            width_multiplier=network.width,
            stem="small" if network.small_stem else "imagenet",
            sk_ratio=network.sk_ratio,
            se_ratio=network.se_ratio,
            image_size=int(side),
            proj_head_mode=network.head,
            num_proj_layers=network.head_layers,
            proj_out_dim=network.out_dim,
            ft_proj_selector=int(stage),
            batch_norm_decay=float(momentum),
            class_names=simclr.placeholder_class_names(network.classes)
            if network.classes
            else None,
        ),
        tuple(assumed),
    )


def load_part(weights: ReferenceWeights, model: simclr.SimCLR, part: str) -> str | None:
    """Fills one part of a network.

    Args:
        weights: weights to load.
        model: network to fill; it stays as it was if the part does not fit.
        part: "encoder", "projection_head" or "linear_head".

    Returns:
        Why the weights do not fit; None if they were loaded, or neither they nor the model have
        the part.
    """
    variables = {
        key: variable
        for key, variable in mapping.variables_of(model).items()
        if _belongs_to(part, key)
    }
    problem = _misfit(weights, variables, part)
    if problem is not None:
        return problem
    for key, variable in variables.items():
        value = weights.stored.read(weights.inferred.names[key])
        variable.assign(value.astype(variable.dtype.as_numpy_dtype))
    return None


def _misfit(weights: ReferenceWeights, variables: Mapping[str, Any], part: str) -> str | None:
    """Returns why the stored weights of a part do not fit the variables of a model, or None."""
    stored = {key: name for key, name in weights.inferred.names.items() if _belongs_to(part, key)}
    if not stored:
        return "the checkpoint has none" if variables else None
    lacking = [key for key in weights.inferred.lacking if _belongs_to(part, key)]
    if lacking:
        return f"the checkpoint lacks {len(lacking)} of its variables, such as {lacking[0]}"
    missing = [key for key in variables if key not in stored]
    if missing:
        return f"{len(missing)} of its {len(variables)} variables are missing, such as {missing[0]}"
    surplus = [key for key in stored if key not in variables]
    if surplus:
        return f"the checkpoint has {len(surplus)} variables more, such as {surplus[0]}"
    for key, variable in variables.items():
        shape = weights.stored.shapes[stored[key]]
        if shape != tuple(variable.shape):
            return f"{key} has the shape {shape} there and {tuple(variable.shape)} here"
    return None


def _belongs_to(part: str, key: str) -> bool:
    return key.startswith(f"{part}/")


def unused_lines(weights: ReferenceWeights) -> list[str]:
    """Returns report lines about the stored variables that no network takes."""
    lines = []
    if weights.stored.slots:
        lines.append(f"optimizer: {_count(weights.stored.slots)} not loaded, it starts at zero")
    unused = [*weights.inferred.unused, *weights.stored.others]
    if unused:
        lines.append(f"unused: {_count(unused)}")
    return lines


def _count(variables: Sequence[str]) -> str:
    listed = text.shortened([name.removesuffix(names.VALUE_SUFFIX) for name in variables], 2)
    return f"{len(variables)} variable{'s' if len(variables) > 1 else ''} ({listed})"
