"""--augment_on: the same training, wherever the views are made."""

import dataclasses
import os
import pathlib
import subprocess

import numpy as np
import program_server
import pytest
import tiny_runs

from simclr_tf import distribute
from simclr_tf.serving import export
from simclr_tf.training import input_wait, loop, placement

# At a high rate, rounding decides which ReLUs are active, and weights diverge within two steps.
VIEWS = {"use_blur": False, "image_size": 8, "train_steps": 3, "learning_rate": 0.02}


@pytest.fixture(scope="module", autouse=True)
def _no_export():
    """Skips the SavedModel, which takes seconds and does not depend on where views are made."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "export", lambda *_, **__: "")
        yield


@pytest.fixture(scope="module")
def on_host(tmp_path_factory):
    """Weights of a run whose views were made on the host."""
    model_dir = tmp_path_factory.mktemp("host") / "run"
    photos = tiny_runs.photos(tmp_path_factory)
    assert tiny_runs.main("pretrain", model_dir, photos, **VIEWS) == 0
    return tiny_runs.weights(model_dir)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="one"),
        pytest.param({"num_virtual_cpus": 2}, id="two", marks=pytest.mark.exhaustive),
        pytest.param({"jit_compile": True}, id="xla", marks=pytest.mark.exhaustive),
    ],
)
def test_views_made_in_the_step_lead_to_the_same_weights(on_host, photos, tmp_path, changes):
    model_dir = tmp_path / "device"
    settings = {**VIEWS, "augment_on": "device", **changes}
    assert tiny_runs.main("pretrain", model_dir, photos, **settings) == 0
    assert (model_dir / "views.png").exists()
    weights = tiny_runs.part(tiny_runs.weights(model_dir), "encoder")
    for name, want in tiny_runs.part(on_host, "encoder").items():
        np.testing.assert_allclose(weights[name], want, rtol=1e-3, atol=2e-4, err_msg=name)


@pytest.mark.parametrize(
    ("changes", "device_is_faster"),
    [
        pytest.param({}, False, id="moves back"),
        pytest.param({}, True, id="stays", marks=pytest.mark.exhaustive),
        pytest.param({"num_virtual_cpus": 2}, False, id="two", marks=pytest.mark.exhaustive),
    ],
)
def test_a_run_that_moves_its_views_while_it_trains_has_the_same_weights(
    photos, tmp_path, monkeypatch, changes, device_is_faster
):
    places = []

    class Trial(placement.Trial):
        def __call__(self, count):
            places.append(self.place)
            return super().__call__(count)

        def _choose(self, host, device):
            seconds = host.seconds / host.steps * (0.5 if device_is_faster else 2.0)
            super()._choose(host, dataclasses.replace(device, steps=1, seconds=seconds))

    # As on a machine with an accelerator, for which the host is too slow.
    monkeypatch.setattr(placement, "Trial", Trial)
    monkeypatch.setattr(distribute, "has_accelerator", lambda strategy: True)
    monkeypatch.setattr(input_wait, "is_long", lambda fraction: True)
    for name in ("_STEPS", "_SECONDS", "_LEAST_LEFT"):
        monkeypatch.setattr(placement, name, 0)
    # One step in a call. Of each place the first one compiles, and two others are measured.
    monkeypatch.setattr(loop, "_steps_per_call", lambda *_: 1)
    settings = {**VIEWS, "train_steps": 8, **changes}
    assert tiny_runs.main("pretrain", tmp_path / "auto", photos, **settings) == 0
    last = "device" if device_is_faster else "host"
    assert places == [*3 * ["host"], *3 * ["device"], last, last]
    settings["augment_on"] = "host"
    assert tiny_runs.main("pretrain", tmp_path / "host", photos, **settings) == 0
    weights = tiny_runs.part(tiny_runs.weights(tmp_path / "auto"), "encoder")
    for name, want in tiny_runs.part(tiny_runs.weights(tmp_path / "host"), "encoder").items():
        np.testing.assert_allclose(weights[name], want, rtol=1e-3, atol=2e-4, err_msg=name)


@pytest.mark.exhaustive
def test_views_made_chunk_by_chunk_lead_to_the_same_weights(photos, tmp_path):
    # Both passes over the chunks make the views: different views would give another gradient.
    trained = {}
    for augment_on in ("host", "auto"):
        settings = {**VIEWS, "augment_on": augment_on, "accum_chunks": 2, "num_virtual_cpus": 2}
        assert tiny_runs.main("pretrain", tmp_path / augment_on, photos, **settings) == 0
        trained[augment_on] = tiny_runs.part(tiny_runs.weights(tmp_path / augment_on), "encoder")
    for name, want in trained["host"].items():
        np.testing.assert_allclose(trained["auto"][name], want, rtol=1e-3, atol=2e-4, err_msg=name)


@pytest.mark.exhaustive
def test_other_views_lead_to_other_weights(on_host, photos, tmp_path):
    model_dir = tmp_path / "other"
    settings = {**VIEWS, "augmentation": "crop,sobel", "augmentation_branches": "one"}
    assert tiny_runs.main("pretrain", model_dir, photos, **settings) == 0
    assert not tiny_runs.equal(
        tiny_runs.part(tiny_runs.weights(model_dir), "encoder"),
        tiny_runs.part(on_host, "encoder"),
    )


def test_the_program_can_split_the_cpu_of_its_process(python, photos, tmp_path):
    """conftest.py splits the CPU of the tests; the program must do so before it uses the CPU.

    All its operations are also deterministic, which a process cannot undo.
    """
    settings = {**tiny_runs.NO_COLOR, "num_virtual_cpus": 2, "train_steps": 1}
    settings["deterministic"] = True
    arguments = tiny_runs.arguments("pretrain", tmp_path / "run", photos, **settings)
    program, tests = pathlib.Path(__file__).parents[1] / "run.py", pathlib.Path(__file__).parent
    done = subprocess.run(
        [python, str(program), *arguments[1:]],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tests), program_server.SETUP: "only_training"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "2 replicas" in done.stdout
    assert "XLA" not in done.stderr  # Its log messages are hidden from the user.
