"""The audit of a data set: what was planted in it is found."""

from __future__ import annotations

import csv
import io
import json
import pathlib
import shutil

import numpy as np
from PIL import Image
import pytest
import tiny_runs

import run
from simclr_tf import config
from simclr_tf.commands import audit, train
from simclr_tf.embeddings import reading
from simclr_tf.evaluation import doubtful_labels, duplicates, outliers
from simclr_tf.serving import export

# Planted in the photos of `planted`.
EXACT = ("test/green/exact.png", "train/green/3.png")
NEAR = ("test/red/near.jpg", "train/red/5.png")
WRONG = ("train/blue/wrong.png", "test/green/wrong.png")
OUTLIER = "train/red/outlier.png"


def test_duplicates_of_a_case_worked_by_hand():
    content = np.array([7, 8, 7, 9, 10, 11])
    # 1 is near 3, and 3 near 4, so that the three are a group; 5 is alone.
    indices = np.array([[5], [3], [5], [4], [3], [0]])
    cosines = np.array([[0.5], [0.97], [0.4], [0.98], [0.98], [0.5]])
    found = duplicates.find(content, indices, cosines, 0.97)
    assert list(found.group) == [0, 1, 0, 1, 1, -1]  # The exact ones come first.
    assert list(found.exact) == [True, False, True, False, False, False]
    assert list(found.representatives()) == [0, 1, 0, 1, 1, 5]
    fewer = duplicates.find(content, indices, cosines, 0.975)
    assert list(fewer.group) == [0, -1, 0, 1, 1, -1]


def test_outliers_are_compared_with_their_class():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 200)
    # Images of the second class are ten times as far from each other.
    distances = rng.normal(0.1, 0.01, 400) * np.where(labels == 0, 1, 10)
    planted = [3, 77, 250]
    distances[planted] = [0.2, 0.3, 2.0]
    scores = outliers.scores(distances, labels)
    assert sorted(np.argsort(-scores)[:3]) == planted
    assert list(np.flatnonzero(scores >= outliers.CUTOFF)) == planted
    without = outliers.scores(distances, np.zeros(400, int))
    assert without[3] < outliers.CUTOFF  # Usual, if classes are not known.


def _clusters(rng, *, count, wrong):
    """Returns features of three classes, labels of which some are wrong, and which these are."""
    labels = np.arange(count) % 3
    features = rng.normal(size=(count, 10)).astype(np.float32)
    features[:, :3] += 4 * np.eye(3)[labels]
    planted = rng.choice(count, wrong, replace=False)
    labels[planted] = (labels[planted] + 1) % 3
    return features, labels, set(planted)


def test_wrong_labels_are_found_with_few_false_alarms():
    features, labels, planted = _clusters(np.random.default_rng(0), count=600, wrong=30)
    probabilities = doubtful_labels.out_of_fold(
        features, labels, np.arange(600), num_classes=3, seed=0
    )
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-6)
    found = doubtful_labels.find(probabilities, labels)
    hits = len(planted & set(found.rows))
    assert hits >= 0.85 * 30 and hits >= 0.9 * len(found.rows)
    assert list(found.given_probability) == sorted(found.given_probability)
    rows = [row for row in found.rows if row in planted]
    suggested = dict(zip(found.rows, found.suggested))
    assert np.mean([suggested[row] == (labels[row] - 1) % 3 for row in rows]) > 0.95


def test_duplicates_do_not_confirm_each_others_label():
    features, labels, planted = _clusters(np.random.default_rng(1), count=150, wrong=8)
    wrong = np.array(sorted(planted))
    groups = np.concatenate([np.arange(150), *[wrong] * 6])
    features, labels = (np.concatenate([x, *[x[wrong]] * 6]) for x in (features, labels))

    def found(groups):
        probabilities = doubtful_labels.out_of_fold(features, labels, groups, num_classes=3, seed=0)
        return len(set(doubtful_labels.find(probabilities, labels).rows) & planted)

    assert found(groups) > found(np.arange(len(labels)))


def test_confident_learning_of_a_case_worked_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [0.45, 0.55], [0.1, 0.9]])
    # The thresholds are 0.6, the mean of 0.9, 0.7 and 0.2, and 0.725, that of 0.55 and 0.9. So the
    # first, second and last image confirm their labels, and the third one, with 0.8, does not.
    found = doubtful_labels.find(probabilities, np.array([0, 0, 0, 1, 1]))
    assert (list(found.rows), list(found.suggested)) == ([2], [1])
    assert (found.given_probability[0], found.suggested_probability[0]) == (0.2, 0.8)


def _smooth(rng, channel):
    """Returns an image without noise, brighter in one channel."""
    coarse = rng.integers(20, 80, (3, 3, 3))
    coarse[..., channel] += 110
    small = Image.fromarray(coarse.astype(np.uint8))
    return small.resize((32, 32), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    root, rng = tmp_path_factory.mktemp("planted"), np.random.default_rng(0)
    images = {}
    for split, count in (("train", 20), ("test", 10)):
        for channel, name in enumerate(("red", "green", "blue")):
            for index in range(count):
                images[f"{split}/{name}/{index}.png"] = _smooth(rng, channel)
    images[WRONG[0]], images[WRONG[1]] = _smooth(rng, 0), _smooth(rng, 2)
    board = 255 * (np.indices((32, 32)).sum(0) // 4 % 2)
    images[OUTLIER] = Image.fromarray(np.stack([board] * 3, -1).astype(np.uint8))
    for path, image in images.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        image.save(root / path)
    shutil.copy(root / EXACT[1], root / EXACT[0])
    images[NEAR[1]].save(root / NEAR[0], quality=60)
    return root


@pytest.fixture(scope="module")
def audited(planted, tmp_path_factory):
    """A run whose features are pixels, and the folder of embeddings with their audit."""
    root = tmp_path_factory.mktemp("audit")
    arguments = tiny_runs.arguments(
        "pretrain", root / "run", planted, encoder="tiny_encoders:pixels", resnet_depth=None
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "export", lambda *_, **__: "")
        patch.setattr(train, "_show_views", lambda *_: None)
        assert run.main([*arguments, "--train_steps=1", "--augmentation=crop"]) == 0
    flags = ["run.py", "--mode=audit", f"--embeddings={root}/embeddings", "--neighbours=5"]
    assert run.main([*flags, f"--checkpoint={root}/run", "--embed_shard_examples=40"]) == 0
    return root / "embeddings"


def _rows(audited: pathlib.Path, name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((audited / "audit" / name).read_text())))


@pytest.mark.exhaustive
def test_planted_duplicates_are_found_and_no_others(audited):
    rows = _rows(audited, "duplicates.csv")
    groups = {}
    for row in rows:
        groups.setdefault((row["group"], row["kind"]), set()).add(row["name"])
    assert groups == {("0", "exact"): set(EXACT), ("1", "near"): set(NEAR)}
    numbers = json.loads((audited / "audit/audit.json").read_text())
    assert 0.95 < numbers["duplicates/cosine"] < 1 and numbers["duplicates/cosine_measured"]
    assert numbers["duplicates/evaluated_in_training"] == 2
    assert numbers["duplicates/groups_with_several_splits"] == 2
    assert numbers["duplicates/groups_with_several_labels"] == 0


@pytest.mark.exhaustive
def test_the_accuracy_without_duplicates_is_that_of_the_other_images(audited):
    numbers = json.loads((audited / "audit/audit.json").read_text())
    name = "knn/20/top_1_accuracy"
    # Of 33 images, all but the one with a wrong label are right, the two duplicates among them.
    assert numbers[name] == pytest.approx(32 / 33)
    assert numbers[f"{name}_without_duplicates"] == pytest.approx(30 / 31)


@pytest.mark.exhaustive
def test_planted_wrong_labels_are_among_the_first(audited):
    rows = _rows(audited, "labels.csv")
    # The outlier is like no class, so that its label is doubted, too.
    assert {row["name"] for row in rows[:3]} == {*WRONG, OUTLIER}
    suggested = {row["name"]: row["suggested"] for row in rows}
    assert (suggested[WRONG[0]], suggested[WRONG[1]]) == ("red", "blue")
    assert len(rows) <= 5


@pytest.mark.exhaustive
def test_the_planted_outlier_comes_first(audited):
    rows = _rows(audited, "outliers.csv")
    assert rows[0]["name"] == OUTLIER
    assert float(rows[0]["score"]) > 2 * float(rows[1]["score"]) if len(rows) > 1 else True


@pytest.mark.exhaustive
def test_pictures_show_what_was_found(audited):
    sheet = np.asarray(Image.open(audited / "audit/duplicates.png"))
    # Two groups of two images, of 8 px drawn at 96, with three lines of text below each.
    assert sheet.shape == (6 + 2 * (18 + 96 + 3 * 14 + 6), 6 + 2 * (96 + 6), 3)
    one, other = (sheet[40:110, x + 6 : x + 90] for x in (6, 6 + 96 + 6))
    np.testing.assert_array_equal(one, other)
    assert {"outliers.png", "labels.png"} <= {path.name for path in (audited / "audit").iterdir()}


@pytest.mark.exhaustive
def test_a_threshold_that_is_given_needs_no_weights(audited, tmp_path, capsys):
    copy = shutil.copytree(audited, tmp_path / "copy")
    manifest = (copy / "manifest.json").read_text()
    (copy / "manifest.json").write_text(manifest.replace("/run/ckpt", "/moved/ckpt"))
    flags = ["run.py", "--mode=audit", f"--embeddings={copy}", f"--model_dir={tmp_path}/out"]
    assert run.main(flags) == 2
    message = capsys.readouterr().err
    assert "are not there" in message and "set --duplicate_cosine" in message
    assert message.count("\n") == 1
    assert run.main([*flags, "--duplicate_cosine=1"]) == 0
    (group,) = {row["group"] for row in csv.DictReader((tmp_path / "out/duplicates.csv").open())}
    assert group == "0"


def test_images_without_labels_are_audited():
    rng = np.random.default_rng(0)
    found = reading.Embeddings(
        folder="",
        manifest=None,
        names=np.array([str(i) for i in range(12)], object),
        labels=np.array([None] * 12, object),
        splits=np.array(["train"] * 12, object),
        content=np.arange(12) // 2 * 2,
        parts=(rng.normal(size=(12, 4)).astype(np.float32),),
    )
    result = audit.examine(found, 0.9999, config.Config(duplicate_cosine=0.9999))
    assert result.numbers["duplicates/groups"] == 6
    assert result.numbers["labels/skipped"] == "The images have no labels"
    assert "no embeddings of a training and a test split" in result.numbers["score/skipped"]
