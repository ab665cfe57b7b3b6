"""What the workers of a cluster must have in common: settings, arithmetic, images and weights."""

import dataclasses
import shutil
from types import SimpleNamespace
from typing import Any

import pytest
import tensorflow as tf

from simclr_tf import cluster, config, errors, workers
from simclr_tf.commands import agreement
from simclr_tf.data import sources


class Chief:
    """The connection of the second worker to a chief, which has the facts of another call."""

    count = 2

    def __init__(self, facts=None):
        self.facts = facts

    def exchange(self, value):
        self.facts = self.facts or value
        return [self.facts, value]


def opened(folder):
    return sources.open_source("image_folder", data_dir=str(folder), seed=0)


def run_of(source, **changes) -> Any:
    settings = dataclasses.replace(config.Config(mode="train"), **changes)
    data = SimpleNamespace(source=source, train_split="train", eval_split="test")
    return SimpleNamespace(config=settings, data=data)


def refusal(check, chief, other):
    """Returns the message for a worker whose arguments differ from those of the chief."""
    connection = Chief()
    check(connection, *chief)
    check(connection, *chief)
    with pytest.raises(errors.UserError) as raised:
        check(connection, *other)
    return str(raised.value)


def test_other_images_are_refused_with_both_numbers(photos, tmp_path):
    whole = opened(photos)
    (tmp_path / "train/red").mkdir(parents=True)
    for path in sorted(photos.glob("train/red/*.png"))[:2]:
        (tmp_path / "train/red" / path.name).write_bytes(path.read_bytes())
    fewer = opened(tmp_path)
    found = refusal(agreement.check_images, [run_of(whole)], [run_of(fewer)])
    assert (
        "worker 1 differs from the chief (classes: [] there, ['blue', 'green', 'red'] on the"
        in found
    )
    assert "images of 'train': 2 there, 36 on the chief" in found
    assert found.endswith("give all workers the same files in --data_dir.")


def test_equally_many_images_of_other_names_are_refused(photos, tmp_path):
    whole = opened(photos)
    shutil.copytree(photos, tmp_path, dirs_exist_ok=True)
    same = opened(tmp_path)
    connection = Chief()
    agreement.check_images(connection, run_of(whole))
    agreement.check_images(connection, run_of(same))  # Their folder may be another.
    (tmp_path / "train/red/0.png").rename(tmp_path / "train/red/x.png")
    other = opened(tmp_path)
    with pytest.raises(errors.UserError, match="hash of the names and classes of 'train': "):
        agreement.check_images(connection, run_of(other))


def test_images_to_evaluate_are_compared_if_the_run_evaluates(photos, tmp_path):
    whole = opened(photos)
    shutil.copytree(photos, tmp_path, dirs_exist_ok=True)
    (tmp_path / "test/red/0.png").unlink()
    other = opened(tmp_path)
    connection = Chief()
    agreement.check_images(connection, run_of(whole))
    agreement.check_images(connection, run_of(other))
    evaluated = {"mode": "train_then_eval"}
    found = refusal(
        agreement.check_images, [run_of(whole, **evaluated)], [run_of(other, **evaluated)]
    )
    assert "images of 'test': 17 there, 18 on the chief" in found


def test_auto_must_be_the_same_arithmetic_on_all_workers():
    def worker(mixed_precision, name) -> Any:
        settings = config.Config(mixed_precision=mixed_precision)
        return [SimpleNamespace(config=settings, arithmetic=SimpleNamespace(name=name))]

    chief, other = worker("auto", "bfloat16"), worker("auto", "float32")
    found = refusal(agreement.check_arithmetic, chief, other)
    assert found == (
        "worker 1 differs from the chief (--mixed_precision=auto: float32 there, bfloat16 on the "
        "chief); give all workers --mixed_precision=none."
    )
    agreement.check_arithmetic(Chief({"never": "compared"}), *worker("none", "float32"))


def test_other_weights_are_refused():
    def network(value) -> Any:
        return SimpleNamespace(variables=[tf.Variable([1.0, value])])

    found = refusal(agreement.check_weights, [network(2.0), 4], [network(2.0000002), 4])
    assert "hash of the weights" in found
    assert "step" not in found.split("(")[1]
    assert found.endswith("the same files in --model_dir, --checkpoint, --teacher.")
    assert "step: 3 there, 4 on the chief" in refusal(
        agreement.check_weights, [network(2.0), 4], [network(2.0), 3]
    )
    assert "(hash of the weights of the teacher: " in refusal(
        agreement.check_weights, [network(2.0), 4, network(3.0)], [network(2.0), 4, network(4.0)]
    )


def test_other_addresses_are_refused_by_the_names_of_the_workers():
    def settings(*addresses):
        return cluster.Cluster(addresses, 1), config.Config()

    found = refusal(agreement.check_settings, settings("a:1", "b:1"), settings("a:1", "c:1"))
    assert found.startswith("worker 1 (c:1) differs from the chief (TF_CONFIG: a:1,c:1 there, ")


def test_a_single_worker_compares_nothing():
    missing: Any = None
    agreement.check_arithmetic(workers.Alone(), missing)
    agreement.check_images(workers.Alone(), missing)
    agreement.check_weights(workers.Alone(), missing, 0)
