"""Pictures of evaluated images: nearest neighbours, and the files of TensorBoard's projector."""

from __future__ import annotations

import dataclasses
import io

from google.protobuf import text_format
import numpy as np
from PIL import Image
import pytest
from sklearn import metrics
from tensorboard.plugins.projector import projector_config_pb2
import tensorflow as tf
import tiny_runs

from simclr_tf.data import sources
from simclr_tf.evaluation import (
    features,
    forward,
    outcome,
    per_class,
    registry,
    retrieval,
    thumbnails,
)
from simclr_tf.models import simclr
from simclr_tf.report import evaluation_files

_SIDE = 8


@pytest.fixture(scope="module")
def inputs():
    """Forty images of two classes, of which thumbnails of the even ones were kept."""
    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=40)
    test = rng.normal(size=(40, 6)).astype(np.float32) + labels[:, np.newaxis]
    rows = np.arange(0, 40, 2)
    # The red of an image is its number.
    images = np.zeros((20, _SIDE, _SIDE, 3), np.uint8)
    images[..., 0] = rows[:, np.newaxis, np.newaxis]
    return outcome.Inputs(
        *(test, labels, test, labels, np.zeros((40, 2), np.float32)),
        temperature=None,
        class_names=("cat", "dog"),
        seed=0,
        thumbnails=thumbnails.Thumbnails(images, rows),
        test_names=[f"{i}\t.png" for i in range(40)],
    )


def _number(tile: outcome.Tile) -> int:
    return round(255 * float(tile.image[0, 0, 0]))


def test_the_neighbours_that_are_drawn_are_the_nearest_ones(inputs):
    sheet = retrieval.evaluate(inputs).sheets["neighbours.png"]
    assert len(sheet) == 12
    similarities = metrics.pairwise.cosine_similarity(inputs.test_features[::2])
    np.fill_diagonal(similarities, -2)
    for caption, (query, *near) in sheet:
        number = _number(query)
        assert caption == f"{number}\t.png"
        expected = 2 * np.argsort(-similarities[number // 2])[:8]
        assert [_number(tile) for tile in near] == list(expected)
        for tile, other in zip(near, expected):
            same = inputs.test_labels[other] == inputs.test_labels[number]
            assert tile.frame == ("green" if same else "red")
            assert tile.lines[1] == inputs.class_names[inputs.test_labels[other]]


def test_captions_say_which_channels_are_drawn(inputs):
    small = dataclasses.replace(inputs.thumbnails, channels="channel nir as grey")
    scores = np.random.default_rng(1).normal(size=(40, 2)).astype(np.float32)
    changed = dataclasses.replace(inputs, thumbnails=small, test_scores=scores)
    sheets = {**retrieval.evaluate(changed).sheets, **per_class.evaluate(changed).sheets}
    captions = [caption for sheet in sheets.values() for caption, _ in sheet]
    assert len(sheets) == 2 and all(one.endswith("; channel nir as grey") for one in captions)
    unnamed = retrieval.evaluate(dataclasses.replace(changed, test_names=None))
    assert unnamed.sheets["neighbours.png"][0][0] == "channel nir as grey"


def test_the_mistakes_that_are_drawn_are_the_most_certain_ones(inputs):
    scores = np.random.default_rng(1).normal(size=(40, 2)).astype(np.float32)
    changed = dataclasses.replace(inputs, test_scores=scores)
    sheet = per_class.evaluate(changed).sheets["mistakes.png"]
    tiles = [tile for _, row in sheet for tile in row]
    margin = scores[:, 1] - scores[:, 0]
    wrong = [i for i in range(0, 40, 2) if (margin[i] > 0) != inputs.test_labels[i]]
    expected = sorted(wrong, key=lambda i: -abs(margin[i]))
    assert [_number(tile) for tile in tiles] == expected and len(expected) > 8
    assert [len(row) for _, row in sheet] == [8, len(expected) - 8]
    probability = 1 / (1 + np.exp(-abs(margin[expected[0]])))
    right = inputs.class_names[inputs.test_labels[expected[0]]]
    guess = {"cat": "dog", "dog": "cat"}[right]
    assert tiles[0].lines == (f"{guess} ({probability:.1%})", f"label: {right}")


def test_a_classifier_without_mistakes_has_no_picture_of_them(inputs):
    scores = np.eye(2, dtype=np.float32)[inputs.test_labels]
    changed = dataclasses.replace(inputs, test_scores=scores)
    assert per_class.evaluate(changed).sheets == {}


def test_nothing_is_drawn_without_thumbnails(inputs):
    without = dataclasses.replace(inputs, thumbnails=None)
    assert retrieval.evaluate(without).sheets == {} == per_class.evaluate(without).sheets


def test_frames_are_around_the_images_on_the_sheet(inputs, tmp_path):
    rows = retrieval.evaluate(inputs).sheets["neighbours.png"][:1]
    found = outcome.Outcome(sheets={"neighbours.png": rows})
    evaluation_files.write(str(tmp_path), 3, {"retrieval": found})
    sheet = np.asarray(Image.open(tmp_path / "evaluation/3/neighbours.png"))
    colours = {"green": (0, 128, 0), "red": (255, 0, 0)}
    for column, tile in enumerate(rows[0][1][1:], 1):
        x = 6 + column * (96 + 6)
        assert tuple(sheet[6 + 18 + 40, x - 2]) == colours[tile.frame]


def test_the_files_of_the_projector_belong_together(inputs, tmp_path):
    more = dataclasses.replace(inputs, thumbnails=_all_thumbnails(inputs))
    evaluation_files.write(str(tmp_path), 3, {"map": registry.EVALUATIONS["map"](more)})
    folder = tmp_path / "evaluation/3/projector"
    config = text_format.Parse(
        (folder / "projector_config.pbtxt").read_text(), projector_config_pb2.ProjectorConfig()
    )
    (embedding,) = config.embeddings
    points = np.loadtxt(folder / embedding.tensor_path, delimiter="\t")
    header, *lines = (folder / embedding.metadata_path).read_text().splitlines()
    assert header == "class\timage" and len(points) == len(lines) == 40
    numbers = [int(line.split("\t")[1].split(" ")[0]) for line in lines]
    assert sorted(numbers) == list(range(40))
    # Six principal components of six features keep all distances.
    unit = inputs.test_features / np.linalg.norm(inputs.test_features, axis=1, keepdims=True)
    distances = metrics.pairwise_distances(unit[numbers])
    np.testing.assert_allclose(metrics.pairwise_distances(points), distances, atol=1e-4)
    width, height = embedding.sprite.single_image_dim
    sprite = np.asarray(Image.open(io.BytesIO((folder / "sprite.png").read_bytes())))
    columns = sprite.shape[1] // width
    for place, number in enumerate(numbers):
        y, x = place // columns * height, place % columns * width
        assert (sprite[y : y + height, x : x + width, 0] == number).all()


def _all_thumbnails(inputs):
    images = np.zeros((40, _SIDE, _SIDE, 3), np.uint8)
    images[..., 0] = np.arange(40)[:, np.newaxis, np.newaxis]
    return thumbnails.Thumbnails(images, np.arange(40))


def test_thumbnails_are_those_of_their_rows(photos, monkeypatch):
    monkeypatch.setattr(thumbnails, "MOST", 10)
    source = sources.open_source("image_folder", data_dir=str(photos), seed=0)
    architecture = dataclasses.replace(
        tiny_runs.ARCHITECTURE, encoder="tiny_encoders:pixels", class_names=None
    )
    model = simclr.SimCLR(architecture, seed=0)
    network = forward.Forward(model, outputs=forward.Outputs(thumbnail_seed=1))
    found = features.extract(network, source, "test", batch_size=7)
    small = found.thumbnails
    assert len(small.rows) == 10 and list(small.rows) == sorted(set(small.rows))
    # The features are the pixels, less a half.
    pixels = 255 * (found.features[small.rows].reshape(10, _SIDE, _SIDE, 3) + 0.5)
    np.testing.assert_allclose(small.images, pixels, atol=0.51)
    assert features.extract(forward.Forward(model), source, "test", batch_size=7).thumbnails is None


def test_large_images_are_made_small():
    ramp = tf.tile(tf.linspace(0.0, 1.0, 96)[tf.newaxis, :, tf.newaxis, tf.newaxis], [1, 1, 96, 3])
    small = thumbnails.of_batch(ramp).numpy()
    assert small.shape == (1, 48, 48, 3) and small.dtype == np.uint8
    pairs = np.linspace(0, 255, 96).reshape(48, 2).mean(1)
    np.testing.assert_allclose(small[0, :, 0, 0], pairs, atol=0.51)
