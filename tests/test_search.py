"""Searching embeddings for the images that are nearest to a query."""

from __future__ import annotations

import csv
import shutil

import numpy as np
from PIL import Image, ImageOps
import pytest
from sklearn import metrics
import tensorflow as tf
import tiny_runs

import run
from simclr_tf.commands import search
from simclr_tf.embeddings import reading
from simclr_tf.evaluation import neighbours


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tiny_runs.pretrained(tmp_path_factory)


@pytest.fixture(scope="module")
def embedded(tmp_path_factory):
    return tiny_runs.embedded(tmp_path_factory)


def find(embedded, query, *more):
    return run.main(
        ["run.py", "--mode=search", f"--embeddings={embedded}", f"--query={query}", *more]
    )


def refusal(capsys, *arguments):
    capsys.readouterr()
    assert find(*arguments) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ") and message.count("\n") == 1
    return message


def test_the_nearest_images_are_those_of_all_cosines(embedded, photos, tmp_path, capsys):
    paths = [photos / "test/red/0.png", photos / "train/blue/1.png"]
    query = ",".join(map(str, paths))
    assert find(embedded, query, "--neighbours=4", f"--model_dir={tmp_path}") == 0
    found = reading.open_folder(str(embedded))
    whole = np.concatenate(found.parts)
    own = [list(found.names).index(str(path.relative_to(photos))) for path in paths]
    cosines = metrics.pairwise.cosine_similarity(whole[own], whole)
    with open(tmp_path / "neighbours.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8
    for number, path in enumerate(paths):
        near = [row for row in rows if row["query"] == str(path)]
        assert near[0]["name"] == str(path.relative_to(photos))
        expected = np.sort(cosines[number])[::-1][:4]
        assert [float(row["cosine"]) for row in near] == pytest.approx(list(expected), abs=1e-4)
        assert all(row["name"].split("/")[:2] == [row["split"], row["label"]] for row in near)
    printed = capsys.readouterr().out
    assert f"The nearest of 54 images to {paths[0]}:" in printed
    sheet = tf.io.decode_png((tmp_path / "neighbours.png").read_bytes()).numpy()
    # Two rows of the query and four neighbours, with three lines of text below each.
    assert sheet.shape == (6 + 2 * (18 + 96 + 3 * 14 + 6), 6 + 5 * (96 + 6), 3)
    query_drawn, first = (sheet[30:110, x + 6 : x + 90] for x in (6, 6 + 96 + 6))
    np.testing.assert_array_equal(query_drawn, first)  # The image itself is the nearest.


def test_a_query_is_turned_upright_as_in_evaluation(tmp_path):
    upright = Image.fromarray(
        np.tile(np.linspace(0, 255, 60, dtype=np.uint8)[:, None, None], (1, 48, 3))
    )
    turned = upright.rotate(90, expand=True)
    exif = Image.Exif()
    exif[0x0112] = 6  # To be turned clockwise by 90 degrees.
    turned.save(tmp_path / "turned.jpg", quality=100, exif=exif)
    assert ImageOps.exif_transpose(Image.open(tmp_path / "turned.jpg")).size == upright.size
    upright.save(tmp_path / "upright.png")
    read = [search._read(str(tmp_path / name), 40) for name in ("turned.jpg", "upright.png")]
    np.testing.assert_allclose(*read, atol=0.03)


def test_neighbours_in_parts_are_those_in_the_whole():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(23, 5)).astype(np.float32)
    rows[20] = rows[3]
    parts = np.split(rows, [7, 8, 19])
    similarities = metrics.pairwise.cosine_similarity(rows)
    indices, values = neighbours.nearest_in_parts(rows, parts, 6, own=np.arange(23))
    np.fill_diagonal(similarities, -2)
    np.testing.assert_allclose(values, -np.sort(-similarities, 1)[:, :6], atol=1e-5)
    assert indices[20, 0] == 3 and indices[3, 0] == 20
    assert not np.any(indices == np.arange(23)[:, np.newaxis])


def test_more_equal_images_than_neighbours_do_not_find_themselves():
    rows = np.ones((9, 3), np.float32)
    indices, values = neighbours.nearest_in_parts(rows, [rows[:4], rows[4:]], 2, own=np.arange(9))
    assert indices.shape == (9, 2) and not np.any(indices == np.arange(9)[:, np.newaxis])
    np.testing.assert_allclose(values, 1, atol=1e-6)


def test_a_folder_of_queries_is_read_in_order(photos):
    files = search.query_files(f"{photos}/test/red, {photos}/test/blue/0.png")
    assert files == [str(photos / f"test/red/{i}.png") for i in range(6)] + [
        str(photos / "test/blue/0.png")
    ]


def test_what_cannot_be_searched_is_said(embedded, photos, checkpoint, tmp_path, capsys):
    query = photos / "test/red/0.png"
    assert "does not exist; name a folder that --mode=embed" in refusal(
        capsys, tmp_path / "missing", query
    )
    assert "has no manifest.json" in refusal(capsys, photos, query)
    missing = tmp_path / "missing.png"
    assert f"--query={missing} names {missing}, which does not exist" in refusal(
        capsys, embedded, missing
    )
    (tmp_path / "empty").mkdir()
    assert "holds no images" in refusal(capsys, embedded, tmp_path / "empty")
    (tmp_path / "text.png").write_text("text")
    assert "is not a readable image" in refusal(capsys, embedded, tmp_path / "text.png")
    assert "set --query to an image file" in refusal(capsys, embedded, "")
    other = f"--checkpoint={checkpoint}/ckpt-2"
    message = refusal(capsys, embedded, query, other)
    assert "was made with other weights" in message and str(checkpoint / "ckpt-4") in message


def test_weights_that_were_moved_are_named_again(embedded, checkpoint, photos, tmp_path, capsys):
    copy = shutil.copytree(embedded, tmp_path / "copy")
    manifest = (copy / "manifest.json").read_text()
    (copy / "manifest.json").write_text(manifest.replace(f"{checkpoint}/ckpt-4", "/moved/ckpt-4"))
    query = photos / "test/red/0.png"
    message = refusal(capsys, copy, query)
    assert "/moved/ckpt-4, are not there; set --checkpoint" in message
    assert find(copy, query, f"--checkpoint={checkpoint}") == 0
    assert (copy / "search" / "neighbours.csv").exists()
