"""Input from a tf.data service with a dispatcher and two workers."""

import gc
import pathlib

import numpy as np
from PIL import Image
import pytest
import tensorflow as tf
import tiny_runs

from simclr_tf import config
from simclr_tf.data import decode, pipeline, policies, sources
from simclr_tf.runs import dataset

COUNT = 24


@pytest.fixture(scope="module")
def service():
    data = tf.data.experimental.service
    dispatcher = data.DispatchServer(data.DispatcherConfig(port=0))
    address = dispatcher.target.split("://")[1]
    workers = [data.WorkerServer(data.WorkerConfig(dispatcher_address=address)) for _ in range(2)]
    yield dispatcher.target
    gc.collect()  # Ends streams that are still open, for which a worker would wait.
    for server in (*workers, dispatcher):
        server._stop()


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    root = tmp_path_factory.mktemp("levels")
    for number in range(COUNT):
        level = 10 * (number + 1)
        Image.new("RGB", (9 + number % 3, 10), (level, level, level)).save(root / f"{number}.png")
    return sources.open_source("image_folder", data_dir=str(root), seed=0)


def _batches(source, service, **settings):
    policy = policies.Policy(8, ops=())
    return pipeline.train_batches(
        source, "train", policy, num_views=2, seed=5, data_service=service, **settings
    )


def test_two_workers_read_every_image_once_in_each_epoch(source, service):
    epochs = []
    for _, batch in zip(range(6), _batches(source, service, batch_size=COUNT)):
        assert batch["views"].shape == (COUNT, 2, 8, 8, 3)
        epochs.append(np.round(batch["views"][:, 0, 4, 4, 0].numpy() * 255).astype(int))
    for epoch in epochs:  # Here a batch is an epoch, and each epoch comes from one worker.
        assert sorted(epoch) == [10 * (i + 1) for i in range(COUNT)]
    assert len({tuple(epoch) for epoch in epochs}) == 6  # All epochs differ.


def test_views_from_the_service_are_augmented_independently(service, tmp_path):
    random = np.random.default_rng(0)
    for number in range(COUNT):  # Noise, of which two crops differ.
        noise = random.integers(256, size=(16, 16, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{number}.png")
    noisy = sources.open_source("image_folder", data_dir=str(tmp_path), seed=0)
    batches = pipeline.train_batches(
        noisy, "train", policies.Policy(8), batch_size=8, num_views=2, seed=5, data_service=service
    )
    views = np.concatenate([batch["views"] for _, batch in zip(range(6), batches)])
    assert len(np.unique(views.reshape(96, -1), axis=0)) == 96


def test_an_image_that_only_pillow_decodes_is_refused_by_its_name(service, tmp_path):
    Image.new("RGB", (9, 10)).save(tmp_path / "a.webp")
    photos = sources.open_source("image_folder", data_dir=str(tmp_path), seed=0)
    with_pillow = dataset.has_pillow(config.Config(data_service=service))
    batches = _batches(photos, service, batch_size=1, with_pillow=with_pillow)
    with pytest.raises(tf.errors.InvalidArgumentError, match="is a WebP image, which") as raised:
        next(iter(batches))
    assert decode.is_decode_error(raised.value)
    assert next(iter(_batches(photos, None, batch_size=1)))["views"].shape == (1, 2, 8, 8, 3)


@pytest.mark.exhaustive
def test_training_runs_on_a_service(service, photos, tmp_path, no_export):
    model_dir = tmp_path / "run"
    settings = {**tiny_runs.NO_COLOR, "data_service": service}
    assert tiny_runs.main("pretrain", model_dir, photos, **settings) == 0
    assert tiny_runs.lines_of(model_dir / "metrics.jsonl")[-1]["step"] == 4


def test_an_invalid_address_is_refused(photos, tmp_path, capsys):
    assert tiny_runs.main("pretrain", tmp_path / "run", photos, data_service="localhost:1") == 2
    assert "grpc://HOST:PORT" in capsys.readouterr().err
    assert not pathlib.Path(tmp_path / "run").exists()
