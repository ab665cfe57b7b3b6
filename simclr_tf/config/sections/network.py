"""The encoder, its heads and its batch norm."""

from __future__ import annotations

import dataclasses

from simclr_tf.config.metadata import Section

_RESNET = ("encoder", ("resnet",))
_MAX_PROJ_LAYERS = 32

_NETWORK = Section("Network")


@dataclasses.dataclass(frozen=True)
class NetworkSettings:
    """The encoder, its heads and its batch norm."""

    encoder: str = _NETWORK.setting(
        "resnet",
        "resnet; keras:NAME, a network of tf.keras.applications such as EfficientNetV2B0, with its "
        "own preprocess_input and, for images of other channels than three, a convolution to three "
        "before it; or MODULE:FUNCTION, your own function, which is called with input_shape=(size, "
        "size, channels) and returns a Keras model from images in [0, 1] to features or a feature "
        "map. In the last two, batch norm layers are replaced by cross-replica ones, and "
        "dropout and stochastic depth are off.",
        resume="never",
    )
    resnet_depth: int = _NETWORK.setting(
        50,
        "Depth of the ResNet: 18, 34, 50, 101, 152, 200, or of the small CIFAR family 20, 32, 44, "
        "56, 110 (also 8 and 14).",
        resume="never",
        at_least=8,
        at_most=200,
        reason="18, 34, 50, 101, 152, 200, or 8, 14, 20, 32, 44, 56, 110 of the CIFAR family",
    )
    width_multiplier: int = _NETWORK.setting(
        1,
        "Multiplies the number of channels; the papers use 1 to 4.",
        at_least=1,
        reason="it multiplies the channels",
        only_with=_RESNET,
        resume="never",
        at_most=16,
        limit_reason="the papers use up to 4",
    )
    stem: str = _NETWORK.setting(
        "auto",
        "small: 3x3 convolution without max-pooling. imagenet: 7x7 convolution with stride 2, then "
        "max-pooling. auto: small up to 32 px.",
        choices=("auto", "small", "imagenet"),
        only_with=_RESNET,
        resume="never",
    )
    sk_ratio: float = _NETWORK.setting(
        0.0,
        "Above 0: selective kernels, which mix two 3x3 streams by a network of this fraction of "
        "their width, with the stem and shortcuts of ResNet-D. SimCLRv2 uses 0.0625, for 3 points "
        "of accuracy at 1.5 times the parameters. In basic blocks (18, 34, CIFAR) only the stem "
        "and shortcuts change.",
        at_least=0,
        at_most=1,
        only_with=_RESNET,
        resume="never",
    )
    se_ratio: float = _NETWORK.setting(
        0.0,
        "Above 0: squeeze-excitation, which scales each channel by a network of this fraction of "
        "the block's width. The paper's 1/16 corresponds to 0.25 in the bottlenecks here.",
        at_least=0,
        at_most=1,
        only_with=_RESNET,
        resume="never",
    )
    proj_head_mode: str = _NETWORK.setting(
        "nonlinear",
        "Projection head. In the paper nonlinear is 3 points better than linear and more than 10 "
        "better than none.",
        choices=("none", "linear", "nonlinear"),
        resume="never",
    )
    proj_out_dim: int = _NETWORK.setting(
        128,
        "Output width of the projection head. The paper saw little difference from 32 to 2048.",
        at_least=1,
        reason="it is the width of the projection",
        resume="never",
        at_most=65536,
        limit_reason="the paper uses up to 2048",
    )
    num_proj_layers: int = _NETWORK.setting(
        3,
        "Layers of the nonlinear head: 2 in SimCLR, 3 in SimCLRv2. All but the last have the width "
        "of the features.",
        at_least=1,
        reason="use --proj_head_mode=none for no head",
        resume="never",
        at_most=_MAX_PROJ_LAYERS,
        limit_reason="the papers use up to 4",
    )
    proj_head_bn: bool = _NETWORK.setting(
        True,
        "Batch norm in the projection head. SupCon's heads have biases instead: off with "
        "--num_proj_layers=2 is its 2048-128 head, off with --proj_head_mode=linear its 128 head.",
        resume="never",
    )
    normalize_features: bool = _NETWORK.setting(
        False,
        "l2-normalises the features before both heads, as SupCon does on ImageNet. Evaluation and "
        "export then use the normalised features.",
        resume="never",
    )
    ft_proj_selector: int = _NETWORK.setting(
        0,
        "Layer of the projection head that the classifier reads: 0 the encoder's features, 1 the "
        "first layer (SimCLRv2 with few labels), -1 the last.",
        resume="never",
        at_least=-1,
        at_most=_MAX_PROJ_LAYERS,
        reason="-1 is the last layer",
        limit_reason="a head has no more layers",
    )
    global_bn: bool = _NETWORK.setting(
        True,
        "Computes batch-norm statistics over all replicas, so that the statistics of a replica do "
        "not reveal which images belong together.",
    )
    batch_norm_decay: float = _NETWORK.setting(
        0.9,
        "Decay of the moving averages of batch norm, per step.",
        at_least=0,
        at_most=1,
        resume="never",
    )
