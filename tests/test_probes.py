"""The probes of table 3: their images, and what is measured from the representations."""

from __future__ import annotations

from matplotlib import figure, patches
import numpy as np
import pytest
import replicas as testing_replicas
import tensorflow as tf
import tiny_runs

from simclr_tf.data import sources
from simclr_tf.evaluation import features, forward
from simclr_tf.evaluation import probes as probes_lib
from simclr_tf.models import simclr
from simclr_tf.scoring import probes


@pytest.fixture(scope="module")
def images():
    return tf.constant(np.random.default_rng(0).uniform(size=(8, 6, 6, 3)).astype(np.float32))


def _changed(name, images, label, positions=None, seed=0):
    count = len(images)
    positions = tf.range(count) if positions is None else tf.constant(positions)
    return probes.changed(name, images, tf.fill([count], label), positions, seed).numpy()


@pytest.mark.parametrize("name", ["color", "rotation", "noise", "sobel"])
def test_the_first_answer_is_the_original(images, name):
    np.testing.assert_array_equal(_changed(name, images, 0), images)


@pytest.mark.parametrize("label", [1, 2, 3])
def test_a_rotation_turns_by_its_label_times_90_degrees(images, label):
    want = np.rot90(images, label, axes=(1, 2))
    np.testing.assert_array_equal(_changed("rotation", images, label), want)


def test_grey_and_sobel_are_those_of_tf_image(images):
    grey = tf.image.grayscale_to_rgb(tf.image.rgb_to_grayscale(images))
    np.testing.assert_allclose(_changed("color", images, 1), grey, atol=1e-6)
    edges = tf.norm(tf.image.sobel_edges(images), axis=-1)
    np.testing.assert_allclose(_changed("sobel", images, 1), np.clip(edges, 0, 1), atol=1e-5)


def test_the_noise_of_an_image_depends_on_the_image_and_on_nothing_else():
    flat = tf.fill([8, 32, 32, 3], 0.5)
    noise = _changed("noise", flat, 1) - 0.5
    assert noise.std() == pytest.approx(0.1, rel=0.03) and abs(noise.mean()) < 0.003
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.05
    alone = _changed("noise", flat[:1], 1, positions=[5]) - 0.5
    np.testing.assert_array_equal(alone[0], noise[5])
    assert not np.array_equal(_changed("noise", flat, 1, seed=1) - 0.5, noise)


def test_answers_have_their_probabilities_and_differ_between_splits_and_tasks():
    grey = probes.answers("color", 20_000, "train", 0)
    assert np.mean(grey) == pytest.approx(0.2, abs=0.01)
    turns = probes.answers("rotation", 20_000, "train", 0)
    np.testing.assert_allclose(np.bincount(turns) / 20_000, 0.25, atol=0.01)
    assert (probes.answers("rotation", 20_000, "test", 0) != turns).mean() > 0.7
    noise, sobel = (probes.answers(name, 20_000, "train", 0) for name in ("noise", "sobel"))
    assert 0.45 < (noise == sobel).mean() < 0.55


@pytest.mark.parametrize("replicas", [1, 2])
def test_representations_are_of_the_changed_images(tmp_path_factory, replicas):
    source = sources.open_source(
        "image_folder", data_dir=str(tiny_runs.photos(tmp_path_factory)), seed=0
    )
    strategy = testing_replicas.strategy(replicas)
    with strategy.scope():
        model = simclr.SimCLR(tiny_runs.ARCHITECTURE, seed=0)
    seen = []

    def change(images, positions):
        tf.py_function(lambda p: seen.extend(p.numpy().tolist()), [positions], [])
        return 1 - images

    found = features.extract(
        forward.Forward(
            model, strategy, forward.Outputs(projection=True, pixels=True), change=change
        ),
        source,
        "test",
        batch_size=8,
    )
    plain = features.extract(
        forward.Forward(model, strategy, forward.Outputs(pixels=True)),
        source,
        "test",
        batch_size=8,
    )
    np.testing.assert_allclose(found.pixels, 1 - plain.pixels, atol=1e-6)
    assert plain.projection is None
    want = model.infer(tf.reshape(found.pixels, [-1, 8, 8, 3]))["features"]
    np.testing.assert_allclose(found.features, want, rtol=1e-4, atol=1e-5)
    stages = model.projection_head(want, training=False)
    np.testing.assert_allclose(found.projection, stages[-1], rtol=1e-4, atol=1e-5)
    assert sorted(position for position in seen if position >= 0) == list(range(18))


@pytest.fixture(scope="module")
def outcome():
    """One task that h answers linearly and g(h) not at all, and one that needs a hidden layer."""
    rng = np.random.default_rng(0)
    tasks = []
    for name, sign_of in (
        ("linear", lambda x: x[:, 0] + 0.5),
        ("xor", lambda x: np.prod(np.sign(x[:, :2]), 1)),
    ):
        known, noise = (rng.normal(size=(900, 4)).astype(np.float32) for _ in range(2))
        labels = (sign_of(known) > 0).astype(np.int32)
        split = [slice(0, 600), slice(600, 900)]
        train, test = ({"features": known[s], "projection": noise[s]} for s in split)
        tasks.append(probes_lib.Task(name, name, train, labels[:600], test, labels[600:]))
    return tasks, probes_lib.evaluate(tasks, seed=0)


def test_a_probe_finds_what_a_representation_knows_and_chance_otherwise(outcome):
    tasks, found = outcome
    numbers = found.numbers
    assert numbers["probes/linear/features/linear"] > 0.9
    assert numbers["probes/xor/features/linear"] < 0.65
    assert numbers["probes/xor/features/mlp"] > 0.85
    for task in tasks:
        share = np.mean(task.test_labels == np.bincount(task.train_labels).argmax())
        assert numbers[f"probes/{task.name}/chance"] == pytest.approx(share)
        for kind in ("linear", "mlp"):
            low, high = numbers[f"probes/{task.name}/projection/{kind}_95"]
            chance = numbers[f"probes/{task.name}/chance"]
            assert low < chance + 0.05 and high > chance - 0.15


def test_the_table_and_the_figure_have_every_number(outcome):
    _, found = outcome
    rows = found.tables["probes.csv"]
    assert len(rows) == 1 + 2 * 2 * 2
    for task, representation, kind, accuracy, *_ in rows[1:]:
        value = found.numbers[f"probes/{task}/{representation}/{kind}"]
        assert float(accuracy) == pytest.approx(value, abs=1e-4)
    drawn = figure.Figure()
    found.figures["probes.svg"](drawn)
    heights = [
        bar.get_height() for bar in drawn.axes[0].patches if isinstance(bar, patches.Rectangle)
    ]
    assert sorted(heights) == sorted(
        v for k, v in found.numbers.items() if k.endswith(("/linear", "/mlp"))
    )
