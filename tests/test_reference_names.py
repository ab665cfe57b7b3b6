"""Names of weights equal the lists that the reference wrote, for each form."""

import dataclasses

import pytest
import reference_forms
import reference_r18

from simclr_tf import errors
from simclr_tf.reference import mapping, names, networks

NETWORKS = {
    "r18_sk0": networks.Network(18, small_stem=True, classes=1000),
    "r50_sk0": networks.Network(50, classes=1000),
    "r50_sk0.0625": networks.Network(50, sk_ratio=0.0625, classes=1000),
}
FILES = {"tf1": "tf1", "variable": "tf2_variables", "path": "tf2_checkpoint"}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("form", FILES)
def test_names_and_shapes_are_those_of_the_reference(form, network):
    expected = reference_r18.listed(FILES[form], network)
    written = {w.name(form): w.shape for w in names.weights_of(NETWORKS[network])}
    assert written == expected
    if form == "tf1":  # This list is in the order of creation.
        assert list(written) == list(expected)


@pytest.mark.parametrize(
    "changes", [{"resnet_depth": 20}, {"proj_head_bn": False}, {"normalize_features": True}]
)
def test_a_network_that_the_reference_does_not_have_is_refused(changes):
    with pytest.raises(errors.UserError, match="its format cannot represent"):
        mapping.network_of(dataclasses.replace(reference_forms.architecture(), **changes))
