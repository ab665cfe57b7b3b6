"""The images that fine-tuning chooses its learning rate and weight decay on.

Cells are ordinary runs, so the split of the training images into those to learn from and those to
choose on is written as data that such a run can open: a file of labels for a folder of images, and
TFRecord files for other data sets.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import os
from typing import Any

import numpy as np
import tensorflow as tf

from simclr_tf import config as config_lib
from simclr_tf import console, storage
from simclr_tf.data import label_origin, record_files, sources
from simclr_tf.data import labels as labels_lib
from simclr_tf.evaluation import held_out
from simclr_tf.transfer import targets

_LABELS, _RECORDS = "choice.csv", "choice"
_LEARN, _CHOOSE = "train", "validation"


def settings(target: targets.Target, folder: str) -> config_lib.Config:
    """Returns settings whose training split is to learn from, and evaluation split to choose on.

    That is the data set's own validation split. Without one, a stratified fifth of the training
    images is held out, drawn from the seed.

    Args:
        target: the data set.
        folder: where the files that describe the split are kept; they are written once.
    """
    config, source, split = target.config, target.data.source, target.data.train_split
    if target.validation_split is not None:
        return dataclasses.replace(config, eval_split=target.validation_split)
    splits: dict[str, Any] = {"train_split": _LEARN, "eval_split": _CHOOSE}
    if label_origin.is_folder(config.dataset):
        path = os.path.join(folder, _LABELS)
        if not tf.io.gfile.exists(path):
            storage.replace(path, _csv(source, split, config.seed))
        return dataclasses.replace(config, labels=path, **splits)
    records = os.path.join(folder, _RECORDS)
    if not tf.io.gfile.isdir(records):
        with console.working(f"Writing the images to choose on to {records}"):
            _write_records(source, split, config.seed, records)
    pattern = f"{record_files.PREFIX}{records}/*.tfrecord"
    return dataclasses.replace(config, dataset=pattern, data_dir=None, **splits)


def _labels(source: sources.Source, split: str) -> np.ndarray:
    """Returns the labels (n,) of a split, in stored order."""
    known = labels_lib.known(source, split)
    if known is not None:
        return known
    return np.array([int(example["label"]) for example in source.examples(split)], np.int64)


def _held(labels: np.ndarray, seed: int) -> np.ndarray:
    """Returns (n,) bool, which images to choose on; those without a label are not."""
    labelled = np.flatnonzero(labels >= 0)
    held = np.zeros(len(labels), bool)
    held[labelled[held_out.stratified_fifth(labels[labelled], seed=seed).held]] = True
    return held


def _csv(source: sources.Source, split: str, seed: int) -> str:
    """Returns a file of labels for the images of a folder."""
    assert source.class_names is not None
    labels = _labels(source, split)
    held = _held(labels, seed)
    content = io.StringIO()
    writer = csv.writer(content, lineterminator="\n")
    writer.writerow(["file", "label", "split"])
    for name, label, is_held in zip(source.example_names(split), labels, held, strict=True):
        if label >= 0:
            writer.writerow([name, source.class_names[label], _CHOOSE if is_held else _LEARN])
    return content.getvalue()


def _write_records(source: sources.Source, split: str, seed: int, folder: str) -> None:
    """Writes the labelled images as TFRecord files; the folder appears when it is complete."""
    labels = _labels(source, split)
    held = _held(labels, seed)
    partial = f"{folder}.partial"
    tf.io.gfile.makedirs(partial)
    writers = {
        name: tf.io.TFRecordWriter(os.path.join(partial, f"{name}.tfrecord"))
        for name in (_LEARN, _CHOOSE)
    }
    for example, is_held in zip(source.examples(split), held, strict=True):
        if int(example["label"]) >= 0:
            writers[_CHOOSE if is_held else _LEARN].write(_serialized(source, example))
    for writer in writers.values():
        writer.close()
    tf.io.gfile.rename(partial, folder)


def _serialized(source: sources.Source, example: dict[str, Any]) -> bytes:
    """Returns an image and its label under the usual keys."""
    assert source.class_names is not None
    label = int(example["label"])
    values = {
        "image/encoded": tf.train.Feature(
            bytes_list=tf.train.BytesList(value=[example["image"].numpy()])
        ),
        "image/class/label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
        "image/class/text": tf.train.Feature(
            bytes_list=tf.train.BytesList(value=[source.class_names[label].encode()])
        ),
    }
    return tf.train.Example(features=tf.train.Features(feature=values)).SerializeToString()
