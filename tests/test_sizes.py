"""Encoders have the published sizes, counted without allocating variables."""

import dataclasses
import functools
import math
import re

import psutil
import pytest
import tensorflow as tf
import tiny_runs

from benchmarks import sizes
from simclr_tf.models import simclr
from simclr_tf.reference import names, networks

pytestmark = pytest.mark.exhaustive


def _architecture(depth, *, width=1, sk=False, image_size=32, stem="imagenet", **changes):
    return dataclasses.replace(
        tiny_runs.ARCHITECTURE,
        resnet_depth=depth,
        width_multiplier=width,
        sk_ratio=0.0625 if sk else 0.0,
        image_size=image_size,
        stem=stem,
        **changes,
    )


# Millions of parameters, by depth, width and selective kernels: SimCLRv2, table 1.
PUBLISHED = {
    (50, 1, False): 24,
    (50, 2, False): 94,
    (50, 1, True): 35,
    (50, 2, True): 140,
    (101, 1, False): 43,
    (101, 1, True): 65,
    (101, 2, False): 170,
    (101, 2, True): 257,
    (152, 1, False): 58,
    (152, 1, True): 89,
    (152, 2, False): 233,
    (152, 2, True): 354,
    (152, 3, True): 795,
}


_size = functools.cache(sizes.of_encoder)


def _named_parameters(depth, width, sk):
    """Returns the size of all variables of an encoder in the reference, averages included."""
    network = networks.Network(depth, width, sk_ratio=0.0625 if sk else 0.0)
    weights = [w for w in names.weights_of(network) if w.part == "encoder"]
    return sum(math.prod(weight.shape) for weight in weights)


@pytest.mark.parametrize(("depth", "width", "sk"), PUBLISHED)
def test_variables_of_the_reference_have_the_published_number_of_parameters(depth, width, sk):
    # That table counts the averages of batch norm, too.
    assert round(_named_parameters(depth, width, sk) / 1e6) == PUBLISHED[depth, width, sk]


# Every depth, both kinds of kernels and several widths; other combinations differ in numbers only.
@pytest.mark.parametrize(
    ("depth", "width", "sk"),
    [
        (50, 1, False),
        (50, 2, True),
        pytest.param(101, 2, False, marks=pytest.mark.slow),
        pytest.param(152, 1, False, marks=pytest.mark.slow),
    ],
)
def test_encoders_have_as_many_parameters_as_the_variables_of_the_reference(depth, width, sk):
    size = _size(_architecture(depth, width=width, sk=sk))
    assert size.parameters + size.averages == _named_parameters(depth, width, sk)
    assert size.features == 2048 * width


@pytest.mark.parametrize(("width", "millions"), [(1, 24), (2, 94), (4, 375)])
def test_has_the_parameters_of_simclrs_table_6(width, millions):
    assert round(_size(_architecture(50, width=width)).parameters / 1e6) == millions


@pytest.mark.parametrize(
    # torchvision's parameters and multiply-adds at 224 px, with a classifier of 1,000 classes.
    ("depth", "parameters", "giga"),
    [(18, 11_689_512, 1.814), (34, 21_797_672, 3.664), (50, 25_557_032, 4.089)],
)
def test_has_the_size_of_torchvisions_networks(depth, parameters, giga):
    size = _size(_architecture(depth, image_size=224))
    classifier = size.features * 1000
    # With basic blocks, our first shortcut is a projection, as in the published SimCLR.
    extra = 64 * 64 + 2 * 64 if depth < 50 else 0
    assert size.parameters == parameters - classifier - 1000 + extra
    in_extra = 56 * 56 * 64 * 64 if extra else 0
    assert size.multiply_adds == pytest.approx(giga * 1e9 - classifier + in_extra, rel=1e-3)


@pytest.mark.parametrize("width", [3, 4])
def test_a_width_multiplies_the_parameters_by_about_its_square(width):
    one = _size(_architecture(18)).parameters
    wide = _size(_architecture(18, width=width)).parameters
    assert wide / one == pytest.approx(width**2, rel=0.02)


def test_no_variables_are_allocated():
    before = psutil.Process().memory_info().rss
    size = sizes.of_encoder(_architecture(50, width=4))
    assert psutil.Process().memory_info().rss - before < 4 * size.parameters / 4


@pytest.mark.parametrize("name", ["r18_sk0", "r50_sk0", "r50_sk0.0625"])
def test_has_each_variable_of_google_researchs_encoder(golden, name):
    path = golden / "names" / f"tf2_variables_{name}.txt"
    expected = re.findall(
        r"^resnet/.*/(kernel|gamma|beta) (\(.*\))$", path.read_text(), re.MULTILINE
    )
    depth, small = int(name[1:3]), name.startswith("r18")
    architecture = _architecture(depth, sk="0.0625" in name, stem="small" if small else "imagenet")
    with tf.Graph().as_default():
        encoder = simclr.make_encoder(architecture)
        tf.autograph.experimental.do_not_convert(encoder)(tf.zeros([1, 32, 32, 3]))
    shapes = [
        (variable.name.split("/")[-1].split(":")[0], str(tuple(variable.shape)))
        for variable in encoder.trainable_variables
    ]
    assert sorted(shapes) == sorted(expected)
