"""Names and shapes of each weight in google-research/simclr, in the three forms that it stores.

Both its TF1 and its TF2 code number layers through the whole network, in the order in which they
are created, and create the shortcut of a block first. So the architecture alone determines names
and shapes, and no network is built here.
"""

from __future__ import annotations

import collections
import dataclasses
import functools

from simclr_tf.models import channel_attention
from simclr_tf.reference import networks

PARTS = ("encoder", "projection_head", "linear_head")
# Forms of the name of a weight: in TF1 checkpoints; of the TF2 variable, as in SavedModels; and its
# path in the object graph of TF2 checkpoints.
FORMS = ("tf1", "variable", "path")
# Variables of one layer, by the last segment of their names.
LEAVES = ("kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance")
# End of the names in object checkpoints.
VALUE_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"


@dataclasses.dataclass(frozen=True)
class Weight:
    """One variable of a network.

    Attributes:
        part: part of the network, one of PARTS.
        layer: its layer in that part, such as "group1/block2/branch/0/conv".
        leaf: the variable in that layer, one of LEAVES.
        shape: shape of its value.
        tf1: name in the reference's TF1 code.
        variable: name of the variable in the reference's TF2 code, with global_bn.
        path: name in the reference's TF2 checkpoints.
    """

    part: str
    layer: str
    leaf: str
    shape: tuple[int, ...]
    tf1: str
    variable: str
    path: str

    @property
    def key(self) -> str:
        """Identifies the weight, independently of the form of its name."""
        return f"{self.part}/{self.layer}/{self.leaf}"

    def name(self, form: str) -> str:
        """Returns the name in one of FORMS."""
        return {"tf1": self.tf1, "variable": self.variable, "path": self.path}[form]


@functools.lru_cache(maxsize=64)
def weights_of(network: networks.Network) -> tuple[Weight, ...]:
    """Returns every variable of a network, in the order in which the reference creates layers."""
    walk = _Walk(network)
    walk.encoder()
    walk.projection_head()
    walk.linear_head()
    return tuple(walk.weights)


@dataclasses.dataclass(frozen=True)
class _Place:
    """Position of a layer: in keys, in the scopes of TF2 variables, and in the object graph."""

    layer: str
    scope: str
    path: str

    def at(self, layer: str, path: str, scope: str = "") -> _Place:
        joined = (f"{a}/{b}" if b else a for a, b in zip(self._all(), (layer, scope, path)))
        return _Place(*joined)

    def _all(self) -> tuple[str, str, str]:
        return self.layer, self.scope, self.path


class _Walk:
    """Visits the layers of a network in the order of creation, and numbers them as Keras does."""

    def __init__(self, network: networks.Network) -> None:
        self.network = network
        self.weights: list[Weight] = []
        self._counts: collections.Counter[str] = collections.Counter()

    def _next(self, name: str) -> str:
        """Returns a layer's name with its number, which the first layer of a name does not have."""
        number = self._counts[name]
        self._counts[name] += 1
        return f"{name}_{number}" if number else name

    def encoder(self) -> None:
        resnet = _Place("", "resnet", "model/resnet_model")
        channels = self._stem(resnet)
        for group, count in enumerate(networks.BLOCKS[self.network.depth][1]):
            for index in range(count):
                block = _Place(
                    f"group{group + 1}/block{index + 1}",
                    f"resnet/block_group{group + 1}",
                    f"model/resnet_model/block_groups/{group}/layers/{index}",
                )
                filters = 64 * self.network.width * 2**group
                channels = self._block(block, channels, filters, first=not index, strided=group > 0)

    def _stem(self, resnet: _Place) -> int:
        base, network = 64 * self.network.width, self.network
        stem = _Place("stem", resnet.scope, f"{resnet.path}/initial_conv_relu_max_pool")
        if network.small_stem or not network.sk_ratio:
            shapes = [(3 if network.small_stem else 7, 3, base, 0, 2)]
        else:
            shapes = [(3, 3, base // 2, 0, 1), (3, base // 2, base // 2, 2, 3)]
            shapes += [(3, base // 2, base, 4, 6)]
        for index, (size, before, after, conv, norm) in enumerate(shapes):
            self._conv(stem.at(f"{index}/conv", str(conv)), size, before, after)
            self._norm(stem.at(f"{index}/norm", str(norm)), after)
        return base

    def _block(
        self, group: _Place, before: int, filters: int, *, first: bool, strided: bool
    ) -> int:
        bottleneck = self.network.bottleneck
        name = self._next("bottleneck_block" if bottleneck else "residual_block")
        block = group.at("", "", name)
        after = filters * (4 if bottleneck else 1)
        if first:
            self._shortcut(block, before, after, strided=strided)
        if bottleneck:
            self._bottleneck(block, before, filters)
        else:
            self._basic(block, before, filters)
        return after

    def _shortcut(self, block: _Place, before: int, after: int, *, strided: bool) -> None:
        layers = "projection_layers" if self.network.bottleneck else "shortcut_layers"
        # ResNet-D pools first, and pads before that where it strides.
        index = (1 + strided) if self.network.sk_ratio else 0
        self._conv(block.at("shortcut/conv", f"{layers}/{index}"), 1, before, after)
        self._norm(block.at("shortcut/norm", f"{layers}/{index + 1}"), after)

    def _basic(self, block: _Place, before: int, filters: int) -> None:
        for index, channels in enumerate((before, filters)):
            conv, norm = (f"conv2d_bn_layers/{2 * index + i}" for i in (0, 1))
            self._conv(block.at(f"branch/{index}/conv", conv), 3, channels, filters)
            self._norm(block.at(f"branch/{index}/norm", norm), filters)
        if self.network.se_ratio:
            self._excitation(block, "se_layer", filters, filters)

    def _bottleneck(self, block: _Place, before: int, filters: int) -> None:
        layers = "conv_relu_dropblock_layers"
        self._conv(block.at("branch/0/conv", f"{layers}/0"), 1, before, filters)
        self._norm(block.at("branch/0/norm", f"{layers}/1"), filters)
        if self.network.sk_ratio:
            self._selective(block, f"{layers}/3", filters)
            index = 5
        else:
            self._conv(block.at("branch/1/conv", f"{layers}/3"), 3, filters, filters)
            self._norm(block.at("branch/1/norm", f"{layers}/4"), filters)
            index = 6
        self._conv(block.at("branch/2/conv", f"{layers}/{index}"), 1, filters, 4 * filters)
        self._norm(block.at("branch/2/norm", f"{layers}/{index + 1}"), 4 * filters)
        if self.network.se_ratio:
            self._excitation(block, f"{layers}/{index + 3}", filters, 4 * filters)

    def _selective(self, block: _Place, path: str, filters: int) -> None:
        place = block.at("", path, self._next("sk__conv2d"))
        middle = channel_attention.selective_kernel_width(filters, self.network.sk_ratio)
        self._conv(place.at("branch/1/conv", "conv2d_fixed_padding"), 3, filters, 2 * filters)
        self._norm(place.at("branch/1/norm", "batch_norm_relu"), 2 * filters)
        self._conv(place.at("mix/reduce", "conv2d_0"), 1, filters, middle, padded=False)
        self._norm(place.at("mix/norm", "batch_norm_relu_1"), middle)
        self._conv(place.at("mix/expand", "conv2d_1"), 1, middle, 2 * filters, padded=False)

    def _excitation(self, block: _Place, path: str, filters: int, channels: int) -> None:
        place = block.at("excite", path, self._next("se__layer"))
        middle = channel_attention.squeeze_excitation_width(filters, self.network.se_ratio)
        for name, before, after in (("reduce", channels, middle), ("expand", middle, channels)):
            at = place.at(name, f"se_{name}")
            self._conv(at, 1, before, after, padded=False, bias=True)

    def projection_head(self) -> None:
        network = self.network
        count = network.num_head_layers
        for index in range(count):
            name = f"{'l' if network.head == 'linear' else 'nl'}_{index}"
            path = f"model/_projection_head/linear_layers/{index}"
            place = _Place(str(index), f"projection_head/{name}", path)
            last = index == count - 1
            after = network.out_dim if last else network.num_features
            tf1 = f"head_contrastive/{name}"
            self._dense(place, "projection_head", tf1, network.num_features, after)
            norm = place.at("norm", "bn_relu")
            self._norm(norm, after, "projection_head", tf1, center=not last)

    def linear_head(self) -> None:
        network = self.network
        if network.classes is None:
            return
        scope = "head_supervised/linear_layer"
        place = _Place("", scope, "model/supervised_head/linear_layer")
        last = network.num_head_layers and network.stage in (-1, network.num_head_layers)
        before = network.out_dim if last else network.num_features
        self._dense(place, "linear_head", scope, before, network.classes, bias=True)

    def _conv(
        self,
        place: _Place,
        size: int,
        before: int,
        after: int,
        *,
        padded: bool = True,
        bias: bool = False,
    ) -> None:
        """Adds a convolution; the reference wraps `padded` ones in another layer."""
        scope, path = place.scope, place.path
        if padded:
            scope, path = f"{scope}/{self._next('conv2d_fixed_padding')}", f"{path}/conv2d"
        name = self._next("conv2d")
        names = (f"base_model/{name}", f"{scope}/{name}", path)
        self._add("encoder", place.layer, "kernel", (size, size, before, after), *names)
        if bias:
            self._add("encoder", place.layer, "bias", (after,), *names)

    def _norm(
        self,
        place: _Place,
        channels: int,
        part: str = "encoder",
        tf1: str | None = None,
        *,
        center: bool = True,
    ) -> None:
        """Adds a batch norm; TF1 numbers those of the encoder, but not those of the heads."""
        outer, inner = self._next("batch_norm_relu"), self._next("sync_batch_normalization")
        if tf1 is None:
            tf1 = f"base_model/{inner.removeprefix('sync_')}"
        else:
            tf1 = f"{tf1}/batch_normalization"
        for leaf in ("gamma", "beta", "moving_mean", "moving_variance"):
            if center or leaf != "beta":
                names = (tf1, f"{place.scope}/{outer}/{inner}", f"{place.path}/bn")
                self._add(part, place.layer, leaf, (channels,), *names)

    def _dense(
        self, place: _Place, part: str, tf1: str, before: int, after: int, *, bias: bool = False
    ) -> None:
        layer = f"{place.layer}/dense".lstrip("/")
        names = (f"{tf1}/dense", f"{place.scope}/{self._next('dense')}", f"{place.path}/dense")
        self._add(part, layer, "kernel", (before, after), *names)
        if bias:
            self._add(part, layer, "bias", (after,), *names)

    def _add(
        self,
        part: str,
        layer: str,
        leaf: str,
        shape: tuple[int, ...],
        tf1: str,
        variable: str,
        path: str,
    ) -> None:
        named = (f"{tf1}/{leaf}", f"{variable}/{leaf}", f"{path}/{leaf}{VALUE_SUFFIX}")
        self.weights.append(Weight(part, layer, leaf, shape, *named))
