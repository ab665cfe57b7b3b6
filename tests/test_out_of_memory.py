"""What the program says if the memory of a device runs out."""

import types
from typing import Any

import pytest
import tensorflow as tf

from simclr_tf import config
from simclr_tf.runs import diagnosis

ERROR = tf.errors.ResourceExhaustedError(None, None, "OOM when allocating a tensor")


@pytest.mark.parametrize(
    ("device", "augment_on", "remedy"),
    [
        ("/cpu:0", "auto", "use a smaller batch, image size or network."),
        ("/gpu:0", "host", "use a smaller batch, image size or network."),
        # Training may have moved the views to the accelerator.
        (
            "/gpu:0",
            "auto",
            "use a smaller batch, image size or network, or --augment_on=host if the accelerator "
            "made the views.",
        ),
    ],
)
def test_training_names_what_takes_less_memory(tmp_path, device, augment_on, remedy):
    run: Any = types.SimpleNamespace(
        model_dir=str(tmp_path),
        config=config.Config(train_batch_size=32, augment_on=augment_on),
        strategy=tf.distribute.OneDeviceStrategy(device),
    )
    message = str(diagnosis.explain_training_error(run, ERROR))
    assert message.startswith("Memory ran out with --train_batch_size=32 (OOM when allocating")
    assert message.endswith(f"; {remedy}")
    assert "checkpoint" in message
