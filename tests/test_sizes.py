"""Encoders have the sizes that their papers publish, and nothing is allocated to find out."""

import dataclasses
import re

import psutil
import pytest
import tensorflow as tf
import tiny_runs

from simclr_tf.models import simclr, sizes


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
# Tracing takes seconds for each block of a deep network; the others differ from these by numbers.
QUICK = {(50, 1, False), (50, 2, True), (152, 3, True)}


@pytest.mark.parametrize(
    ("depth", "width", "sk"),
    [pytest.param(*key, marks=() if key in QUICK else pytest.mark.slow) for key in PUBLISHED],
)
def test_has_the_published_number_of_parameters(depth, width, sk):
    size = sizes.of_encoder(_architecture(depth, width=width, sk=sk))
    # That table counts the averages of batch norm, too.
    assert round((size.parameters + size.averages) / 1e6) == PUBLISHED[depth, width, sk]
    assert size.features == 2048 * width


@pytest.mark.parametrize(("width", "millions"), [(1, 24), (2, 94), (4, 375)])
def test_has_the_parameters_of_simclrs_table_6(width, millions):
    assert round(sizes.of_encoder(_architecture(50, width=width)).parameters / 1e6) == millions


@pytest.mark.parametrize(
    # torchvision's parameters and multiply-adds at 224 px, less its classifier of 1,000 classes.
    ("depth", "parameters", "giga"),
    [(18, 11_689_512, 1.814), (34, 21_797_672, 3.664), (50, 25_557_032, 4.089)],
)
def test_has_the_size_of_the_networks_that_everyone_uses(depth, parameters, giga):
    size = sizes.of_encoder(_architecture(depth, image_size=224))
    classifier = size.features * 1000
    # In basic blocks ours projects the shortcut of the first group too, as the published SimCLR.
    extra = 64 * 64 + 2 * 64 if depth < 50 else 0
    assert size.parameters == parameters - classifier - 1000 + extra
    in_extra = 56 * 56 * 64 * 64 if extra else 0
    assert size.multiply_adds == pytest.approx(giga * 1e9 - classifier + in_extra, rel=1e-3)


@pytest.mark.parametrize("depth", [34, pytest.param(200, marks=pytest.mark.slow)])
@pytest.mark.parametrize("width", [3, 4])
def test_a_width_multiplies_the_parameters_by_its_square(depth, width):
    one = sizes.of_encoder(_architecture(depth)).parameters
    wide = sizes.of_encoder(_architecture(depth, width=width)).parameters
    assert wide / one == pytest.approx(width**2, rel=0.02)


def test_nothing_is_allocated():
    before = psutil.Process().memory_info().rss
    size = sizes.of_encoder(_architecture(50, width=4))
    assert psutil.Process().memory_info().rss - before < 4 * size.parameters / 4


@pytest.mark.parametrize("name", ["r18_sk0", "r50_sk0", "r50_sk0.0625"])
def test_has_the_variables_of_google_researchs_encoder_one_by_one(golden, name):
    path = golden / "names" / f"tf2_variables_{name}.txt"
    theirs = re.findall(r"^resnet/.*/(kernel|gamma|beta) (\(.*\))$", path.read_text(), re.MULTILINE)
    depth, small = int(name[1:3]), name.startswith("r18")
    architecture = _architecture(depth, sk="0.0625" in name, stem="small" if small else "imagenet")
    with tf.Graph().as_default():
        encoder = simclr.make_encoder(architecture)
        encoder(tf.zeros([1, 32, 32, 3]))
    ours = [
        (variable.name.split("/")[-1].split(":")[0], str(tuple(variable.shape)))
        for variable in encoder.trainable_variables
    ]
    assert sorted(ours) == sorted(theirs)
