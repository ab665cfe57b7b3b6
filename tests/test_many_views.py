"""Several views of an image, and denominators without positives, equal the formulas in loops."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import replicas as over
import tensorflow as tf
import tiny_runs

from simclr_tf import config
from simclr_tf.losses import contrastive, supcon
from simclr_tf.report import contact_sheet, overview
from simclr_tf.runs import batches
from simclr_tf.serving import export
from simclr_tf.training import objectives

TAU = 0.3
# Of four images; the last one has no label, and is a class of its own.
LABELS = np.array([0, 1, 0, -1], np.int32)


def _views(num_views=3, dtype=np.float64):
    return np.random.default_rng(0).normal(size=(num_views, 4, 3)).astype(dtype)


def _by_loops(views, labels, *, decoupled=False, inside=False):
    """Equations 2 and 3 of SupCon, one view at a time, in float64."""
    z = np.asarray(views, np.float64)
    z = z / np.linalg.norm(z, axis=2, keepdims=True)
    places = [(view, image) for view in range(z.shape[0]) for image in range(z.shape[1])]
    losses = []
    for anchor in places:
        others = [place for place in places if place != anchor]
        label = labels[anchor[1]]
        same = [p for p in others if p[1] == anchor[1] or labels[p[1]] == label >= 0]
        exp = {place: np.exp(z[anchor] @ z[place] / TAU) for place in others}
        denominator = sum(exp[place] for place in others if not decoupled or place not in same)
        ratios = [exp[place] / denominator for place in same]
        losses.append(-np.log(np.mean(ratios)) if inside else -np.mean(np.log(ratios)))
    return np.mean(losses)


def _nt_xent(views, _, *, decoupled=False, tile=None):
    views = tf.unstack(views)
    return contrastive.nt_xent(views, temperature=TAU, decoupled=decoupled, tile=tile)


def _supcon(views, labels, *, function=supcon.supcon, tile=None):
    views = tf.unstack(views)
    return function(views, labels, temperature=TAU, decoupled=True, tile=tile).loss


UNLABELLED = np.full(4, -1, np.int32)
# name: (loss, labels, settings of the formula).
CASES: dict[str, tuple[Any, np.ndarray, dict[str, bool]]] = {
    "nt_xent": (_nt_xent, UNLABELLED, {}),
    "nt_xent-decoupled": (
        functools.partial(_nt_xent, decoupled=True),
        UNLABELLED,
        {"decoupled": True},
    ),
    "supcon-decoupled": (_supcon, LABELS, {"decoupled": True}),
    "supcon_in-decoupled": (
        functools.partial(_supcon, function=supcon.supcon_in),
        LABELS,
        {"decoupled": True, "inside": True},
    ),
}


@functools.cache
def _expected(case):
    """Returns the value of the formula, and its gradient."""
    _, labels, settings = CASES[case]

    def formula(views):
        return _by_loops(views, labels, **settings)

    return formula(_views()), over.numerical_gradient(formula, _views())


# At once and in tiles, which have padding; the gradient must reach the views of all replicas.
@pytest.mark.parametrize(("replicas", "tile"), [(1, None), (1, 5), (4, None), (2, 4)])
@pytest.mark.parametrize("case", CASES)
def test_value_and_gradient_of_three_views_equal_the_formula(case, replicas, tile):
    loss, labels, _ = CASES[case]
    loss = functools.partial(loss, tile=tile)
    value, gradient = over.value_and_gradient(loss, _views(), labels, replicas=replicas)
    expected, expected_gradient = _expected(case)
    assert value == pytest.approx(expected, rel=1e-10)
    np.testing.assert_allclose(gradient, expected_gradient, atol=1e-7)


@pytest.mark.parametrize("decoupled", [False, True])
def test_half_precision_projections_of_three_views_are_compared_in_float32(decoupled):
    views = _views(dtype=np.float16)
    expected = _by_loops(views, UNLABELLED, decoupled=decoupled)
    for tile in (None, 5):
        loss = _nt_xent(views, None, decoupled=decoupled, tile=tile)
        assert loss.dtype == tf.float32
        assert float(loss) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("tile", [None, 5])
def test_without_negatives_a_decoupled_loss_is_that_of_the_positives(tile):
    views = tf.constant(_views())
    with tf.GradientTape() as tape:
        tape.watch(views)
        found = _supcon(views, tf.zeros(4, tf.int32), tile=tile)
    unit = tf.reshape(tf.math.l2_normalize(views, -1), [12, 3])
    cosines = tf.matmul(unit, unit, transpose_b=True).numpy()
    assert float(found) == pytest.approx(-(cosines.sum() - 12) / (12 * 11 * TAU))
    assert np.isfinite(tape.gradient(found, views)).all()


@pytest.mark.parametrize(
    ("settings", "candidates"),
    [
        ({"num_views": 3}, 3 * 8 - 1),
        ({"num_views": 3, "decoupled": True}, 3 * 7),
        ({"decoupled": True}, 2 * 7),
        ({"decoupled": True, "negatives": "one"}, 7),
    ],
)
def test_chance_is_the_loss_of_equal_projections(settings, candidates):
    run = config.Config(train_batch_size=8, **settings)
    views = [tf.ones([8, 4])] * run.num_views
    loss, _ = objectives.make_objective(run).loss(views, tf.zeros(8, tf.int32))
    assert float(loss) == pytest.approx(np.log(candidates), rel=1e-5)
    assert objectives.chance_loss(run) == pytest.approx(np.log(candidates))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "nt_xent, 14 negatives per anchor, temperature 0.1, chance loss 2.708"),
        ({"negatives": "one"}, "nt_xent, 7 negatives per anchor, temperature 0.1, chance loss 2.0"),
        ({"num_views": 4}, "nt_xent of 4 views, 28 negatives per anchor, "),
        ({"decoupled": True}, "decoupled nt_xent, 14 negatives per anchor, "),
        ({"num_views": 3, "objective": "supcon"}, "supcon of 3 views, 23 other views per anchor, "),
    ],
)
def test_the_table_at_the_start_counts_what_a_view_is_compared_with(settings, words):
    described = overview._contrast(config.Config(train_batch_size=8, **settings))
    assert described.startswith(words)


def test_rejects_one_side_of_three_views():
    with pytest.raises(ValueError, match="needs two views, the two sides, got 3"):
        contrastive.nt_xent(list(_views()), temperature=TAU, negatives="one")


def test_a_device_makes_three_views_of_images_of_one_size():
    run = config.Config(num_views=3, train_batch_size=4, image_size=8, augmentation="crop")
    batch = {
        "image": tf.zeros([4, 8, 8, 3], tf.uint8),
        "seed": tf.zeros([4, 2], tf.int32),
        "index": tf.range(4),
        "label": tf.zeros([4], tf.int32),
    }
    made = batches.make_views(run, tf.distribute.get_strategy(), batch)
    assert made["views"].shape == (4, 3, 8, 8, 3)


def test_a_run_with_three_views_in_chunks_shows_them_and_their_loss(
    monkeypatch, capsys, photos, tmp_path
):
    sheets = []
    draw = contact_sheet.draw
    monkeypatch.setattr(contact_sheet, "draw", lambda rows: sheets.append(rows) or draw(rows))
    monkeypatch.setattr(export, "export", lambda *_, **__: "")
    settings = {**tiny_runs.NO_COLOR, "num_views": 3, "decoupled": True, "accum_chunks": 2}
    assert tiny_runs.main("train", tmp_path / "run", photos, **settings, train_steps=1) == 0
    assert "decoupled nt_xent of 3 views, 21 negatives per anchor" in capsys.readouterr().out
    (line,) = tiny_runs.lines_of(tmp_path / "run" / "metrics.jsonl")
    assert line["train/chance_loss"] == pytest.approx(np.log(21))
    assert np.isfinite(line["train/contrast_loss"])
    ((*rows,),) = sheets
    assert [caption for caption, _ in rows] == [f"view {n} of each image" for n in (1, 2, 3)]
    first, second, third = (row for _, row in rows)
    assert not np.allclose(first, second) and not np.allclose(second, third)
