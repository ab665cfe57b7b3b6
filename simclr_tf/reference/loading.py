"""From stored weights of google-research/simclr to an architecture and a model of ours."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import Any

from simclr_tf import config as config_lib
from simclr_tf import errors
from simclr_tf.keras_api import keras
from simclr_tf.models import simclr
from simclr_tf.reference import files, inference, mapping, names, networks

# Usual sides of images: of networks with a stem that keeps the resolution, and of others.
_SMALL, _LARGE = 32, 224


@dataclasses.dataclass(frozen=True)
class Foreign:
    """Weights of google-research/simclr, understood.

    Attributes:
        stored: where they are.
        reading: what they say of their network.
        architecture: the network, in our words.
        assumed: what neither weights nor flags.json told, as parts of a sentence.
    """

    stored: files.Stored
    reading: inference.Inferred
    architecture: simclr.Architecture
    assumed: tuple[str, ...]

    @property
    def described(self) -> str:
        """Says what it is, as "TF2 SavedModel of google-research/simclr, ResNet-50 1x"."""
        what = inference.describe(self.reading.network)
        return f"{self.stored.kind} of google-research/simclr, {what}"


def find(path: str) -> Foreign | None:
    """Opens what the reference wrote.

    Args:
        path: see `files.find`.

    Returns:
        The weights and what they say; None if nothing there has the reference's names.

    Raises:
        UserError: if they are damaged, not whole, or of no network.
    """
    stored = files.find(path)
    if stored is None:
        return None
    reading = inference.infer(stored)
    flags = stored.flags
    if flags.get("resnet_depth") != reading.network.depth:
        flags = {}  # Of another run.
    architecture, assumed = _architecture(stored, _whole(reading), flags)
    return Foreign(stored, reading, architecture, assumed)


def _whole(reading: inference.Inferred) -> networks.Network:
    """Returns the network less heads of which something is missing."""
    network, lacking = reading.network, " ".join(reading.lacking)
    if "projection_head/" in lacking:
        network = dataclasses.replace(network, head="none", stage=0)
    if "linear_head/" in lacking:
        network = dataclasses.replace(network, classes=None)
    return network


def contradictions(foreign: Foreign, asked: Mapping[str, Any]) -> list[str]:
    """Compares what a person asked for with the encoder that the weights are of.

    Args:
        foreign: the weights.
        asked: fields of an architecture by name; a ratio that gives the same widths is no other.

    Returns:
        The fields that differ, each with both values.
    """
    differing = []
    for name, value in asked.items():
        stored = getattr(foreign.architecture, name)
        if value == stored or (name.endswith("_ratio") and _same_widths(foreign, name, value)):
            continue
        differing.append(f"--{name}={value} and {stored}")
    return differing


def _same_widths(foreign: Foreign, name: str, ratio: float) -> bool:
    network = foreign.reading.network
    if not (ratio > 0 and getattr(network, name) > 0):
        return False
    changes: dict[str, Any] = {name: ratio}
    other = dataclasses.replace(network, **changes)
    return names.weights_of(other) == names.weights_of(network)


def _architecture(
    stored: files.Stored, network: networks.Network, flags: Any
) -> tuple[simclr.Architecture, tuple[str, ...]]:
    """Puts together what weights, graph and flags tell, and assumes the rest."""
    assumed = []

    def told(name: str, usual: Any) -> Any:
        if name in flags:
            return flags[name]
        assumed.append(f"{name} {usual}")
        return usual

    side = told("image_size", _SMALL if network.small_stem else _LARGE)
    momentum = told("batch_norm_decay", config_lib.Config.batch_norm_decay)
    stage = network.stage
    if stored.graph is not None and stored.graph.stage is not None:
        stage = stored.graph.stage
    elif network.classes is not None and network.num_head_layers and not stage:
        stage = told("ft_proj_selector", 0)
    pooling_told = stored.form == "path" or stored.graph is not None or "sk_ratio" in flags
    if network.small_stem and not network.bottleneck and not pooling_told:
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


def load_part(foreign: Foreign, model: simclr.SimCLR, part: str) -> str | None:
    """Fills one part of a model.

    Args:
        foreign: the weights.
        model: to fill; what does not fit is left as it was.
        part: "encoder", "projection_head" or "linear_head".

    Returns:
        Why the weights do not fit, or None if they were loaded.
    """
    ours = {
        key: variable
        for key, variable in mapping.variables_of(model).items()
        if key.startswith(f"{part}/")
    }
    there = foreign.reading.names
    if not any(key.startswith(f"{part}/") for key in there):
        return "the checkpoint has none"
    lacking = [key for key in foreign.reading.lacking if key.startswith(f"{part}/")]
    if lacking:
        return f"the checkpoint's lacks {len(lacking)} variables, such as {lacking[0]}"
    missing = [key for key in ours if key not in there]
    if missing:
        return f"{len(missing)} of its {len(ours)} variables are not there, such as {missing[0]}"
    surplus = [key for key in there if key.startswith(f"{part}/") and key not in ours]
    if surplus:
        return f"the checkpoint has {len(surplus)} variables more, such as {surplus[0]}"
    for key, variable in ours.items():
        shape = foreign.stored.shapes[there[key]]
        if shape != tuple(variable.shape):
            return f"{key} has the shape {shape} there and {tuple(variable.shape)} here"
    for key, variable in ours.items():
        value = foreign.stored.read(there[key])
        variable.assign(value.astype(variable.dtype.as_numpy_dtype))
    return None


def leftovers(foreign: Foreign) -> list[str]:
    """Returns a line for each kind of thing in the checkpoint that no model takes."""
    lines = []
    if foreign.stored.slots:
        lines.append(f"optimizer: {_count(foreign.stored.slots)} not taken, training starts anew")
    unused = [*foreign.reading.unused, *foreign.stored.others]
    if unused:
        lines.append(f"unused: {_count(unused)}")
    return lines


def _count(items: Any) -> str:
    shown = [item.removesuffix("/.ATTRIBUTES/VARIABLE_VALUE") for item in items[:2]]
    some = ", ".join(shown) + (", ..." if len(items) > 2 else "")
    return f"{len(items)} variable{'s' if len(items) > 1 else ''} ({some})"


def build(
    foreign: Foreign, architecture: simclr.Architecture | None = None
) -> tuple[simclr.SimCLR, list[str]]:
    """Makes the network and fills all of it that is there.

    Args:
        foreign: the weights.
        architecture: of the network, if other things were decided than `find` assumed.

    Returns:
        The model, and one line per part: what was loaded, what was skipped and why.

    Raises:
        UserError: if the encoder does not fit, which would be a fault of the inference.
    """
    model = simclr.SimCLR(architecture or foreign.architecture, seed=0)
    report = [f"weights of {foreign.stored.origin} ({foreign.described})"]
    for part in names.PARTS:
        report.append(_part_line(foreign, model, part, load_part(foreign, model, part)))
    return model, report + leftovers(foreign)


def _part_line(foreign: Foreign, model: simclr.SimCLR, part: str, problem: str | None) -> str:
    """Says what became of a part of a model."""
    if problem and part == "encoder":
        raise errors.UserError(
            f"The encoder in {foreign.stored.origin} does not fit this run's ResNet-"
            f"{model.architecture.resnet_depth} ({problem}); leave out the flags of the network."
        )
    module: keras.Model = getattr(model, part)
    told = part.replace("_", " ")
    count = 0 if module is None else len(module.variables)
    if problem and any(key.startswith(f"{part}/") for key in foreign.reading.names):
        return f"{told}: skipped ({problem})"
    if not count:
        return f"{told}: there is none"
    return f"{told}: loaded {count} of {count} variables"
