"""Channels with names are given to weights in the order that they were trained on."""

import types
from typing import Any

import pytest

from simclr_tf import config as config_lib
from simclr_tf import errors, pixel_format
from simclr_tf.runs import channel_order, dataset

WEIGHTS = pixel_format.of_dtype(3, "uint16").with_names(("B8", "B4", "B3"))
FILES: dict[str, Any] = {"channel_files": "{id}_{channel}.tif"}


def _check(known: tuple[str, ...] | None, pixels=WEIGHTS, **settings: Any) -> None:
    source: Any = types.SimpleNamespace(name="scenes", channel_names=known)
    channel_order.check(config_lib.Config(**settings), source, pixels, "there")


@pytest.mark.parametrize(
    ("known", "settings", "problem"),
    [
        (("B3", "B4", "B8"), FILES, "B3,B4,B8, and .* there take B8,B4,B3; set --channel_names=B8"),
        # Otherwise refused for the number of channels, without a remedy.
        (("B2", "B3", "B4", "B8"), FILES, "set --channel_names=B8,B4,B3"),
        (None, {"channel_names": "B3,B4,B8"}, "put the channels of the images into this order"),
    ],
)
def test_another_order_is_refused(known, settings, problem):
    with pytest.raises(errors.UserError, match=problem):
        _check(known, **settings)


def test_the_order_of_the_weights_and_channels_without_names_are_taken(capsys):
    _check(("B8", "B4", "B3"), **FILES)
    _check(None)
    _check(None, channel_names="B8,B4,B3")
    _check(("B3", "B4", "B8"), pixel_format.of_dtype(3, "uint16").with_names(("0", "1", "2")))
    assert capsys.readouterr() == ("", "")


def test_other_names_are_pointed_out(capsys):
    _check(("red", "green", "blue"))
    printed = "".join(capsys.readouterr())
    assert "The channels red,green,blue of 'scenes' are given, in this order," in printed
    assert "trained on B8,B4,B3" in printed


def test_the_chosen_channels_are_a_setting_of_the_data_of_a_run(monkeypatch):
    stored = config_lib.Config(**FILES, channel_names="B8,B4,B3")
    monkeypatch.setattr(dataset.directory, "read_config", lambda folder: stored)
    weights: Any = types.SimpleNamespace(from_reference=False, folder="there")
    assert dataset.stored_settings(weights)["channel_names"] == "B8,B4,B3"
