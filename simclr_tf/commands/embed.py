"""The embed command: writes the features of every image of a data set, in shards."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

import numpy as np
import tensorflow as tf

from simclr_tf import config as config_lib
from simclr_tf import console, errors, text
from simclr_tf.commands import check_data, embedded
from simclr_tf.data import indicators, sources, split_names
from simclr_tf.data import parts as parts_lib
from simclr_tf.embeddings import manifest as manifest_lib
from simclr_tf.embeddings import shards
from simclr_tf.evaluation import features, forward
from simclr_tf.models import simclr
from simclr_tf.runs import (
    builders,
    dataset,
    diagnosis,
    directory,
    initialization,
    opening,
    unreadable,
)
from simclr_tf.runs import pixels as pixels_lib
from simclr_tf.runs import weights as weights_lib

# Settings that name the data.
_DATA = ("dataset", "data_dir", "labels", "image_key", "label_key", "seed")
_ALL = "all"


def embed(
    config: config_lib.Config,
    weights: weights_lib.Weights | None,
    strategy: tf.distribute.Strategy,
) -> None:
    """Writes the outputs of a network for every image of some splits to --embeddings.

    Shards that are finished there are kept.

    Args:
        config: the settings.
        weights: the weights of --checkpoint.
        strategy: the strategy whose replicas run the network.

    Raises:
        UserError: if weights or data cannot be opened, or the folder has other embeddings.
    """
    assert weights is not None and config.embeddings is not None
    folder = config.embeddings
    source = check_data.open_source(config).with_pixels(pixels_lib.of_weights(weights))
    splits = _splits(config, source)
    pixels_lib.check_suits(config, source, splits[0], source.pixels, weights.origin)
    config = embedded.with_arithmetic(config, strategy)
    model = _network(config, weights, strategy)
    directory.ensure_writable(folder, flag="embeddings")
    source = _without_unreadable(config, source, splits)
    planned = [
        (split, part)
        for split in splits
        for part in parts_lib.of_split(source, split, config.embed_shard_examples)
    ]
    manifest = _manifest(config, weights, model, source, splits, len(planned))
    manifest = _with_finished(manifest, folder)
    manifest_lib.write(folder, manifest)
    with_projection = "projection" in config.embed_output_names
    outputs = forward.Outputs(projection=with_projection, content=True)
    network = forward.Forward(model, strategy, outputs)
    run = _Embedding(config, network, source, len(planned))
    for number, (split, part) in enumerate(planned):
        if number not in manifest.shards:
            manifest = manifest.with_shard(number, run.shard(number, split, part))
            manifest_lib.write(folder, manifest)
    widths = ", ".join(f"{name} ({width})" for name, width in manifest.outputs.items())
    console.say(
        f"{folder}: {widths} of {text.count(manifest.examples, 'image')} in "
        f"{text.count(len(planned), 'shard')}."
    )


@dataclasses.dataclass(frozen=True)
class _Embedding:
    """A network that embeds shards.

    Attributes:
        config: the settings.
        network: the network and what is extracted from it.
        source: the data set.
        num_shards: number of all shards.
    """

    config: config_lib.Config
    network: forward.Forward
    source: sources.Source
    num_shards: int

    def shard(self, number: int, split: str, part: str) -> manifest_lib.Shard:
        """Computes and writes a shard.

        Args:
            number: its number.
            split: the split that it belongs to.
            part: its images, as a split.
        """
        source = _excluding(self.source, split, part)
        names = source.example_names(part)
        if not names:
            return manifest_lib.Shard(split, part, 0, ())
        what = f"shard {number + 1} of {self.num_shards}: features"
        try:
            found = features.extract(
                self.network,
                source,
                part,
                batch_size=self.config.eval_batch_size,
                progress=what,
            )
        except tf.errors.ResourceExhaustedError as error:
            raise diagnosis.out_of_memory(
                "eval_batch_size", self.config.eval_batch_size, error
            ) from error
        except tf.errors.OpError as error:
            raise self._explained(source, part, error) from error
        assert self.config.embeddings is not None and found.content is not None
        files = shards.write(
            self.config.embeddings,
            number,
            self.num_shards,
            names=[names[position] for position in found.positions],
            labels=_class_names(source, found.labels),
            lists=_lists(source, found.labels),
            split=split,
            content=found.content,
            outputs={name: getattr(found, name) for name in self.config.embed_output_names},
        )
        return manifest_lib.Shard(split, part, len(found.positions), files)

    def _explained(self, source: sources.Source, part: str, error: tf.errors.OpError) -> Exception:
        data = dataset.Data(source, part, part)
        run = opening.Run(self.config, data, self.network.strategy, self.network.model.architecture)
        return diagnosis.find_unreadable_image(run, error)


def _splits(config: config_lib.Config, source: sources.Source) -> list[str]:
    """Returns the splits to embed, with the names that the data set has.

    Raises:
        UserError: if there is no such split, or nothing in it.
    """
    if config.embed_split == _ALL:
        return [split for split, count in source.splits.items() if count]
    requested = [split.strip() for split in config.embed_split.split(",")]
    splits = [split_names.resolve(split, source.splits) for split in requested if split]
    for split in splits:
        source.num_examples(split)
    if not splits:
        raise errors.ArgumentError(
            "embed_split",
            config.embed_split,
            f"names no split; the data set has {split_names.listed(source.splits)}.",
        )
    return list(dict.fromkeys(splits))


def _network(
    config: config_lib.Config, weights: weights_lib.Weights, strategy: tf.distribute.Strategy
) -> simclr.SimCLR:
    """Returns the network of the weights, on all replicas.

    Raises:
        UserError: if it does not fit the settings or has no such outputs.
    """
    architecture = builders.architecture_of(
        config, weights.class_names, pixels_lib.of_weights(weights)
    )
    architecture = dataclasses.replace(architecture, several_labels=weights.several_labels)
    if weights.architecture is not None and not weights.from_reference:
        assert config.checkpoint is not None
        directory.check_same(
            weights.architecture, architecture, config.checkpoint, flag="checkpoint"
        )
    with strategy.scope():
        model, _ = initialization.build(
            weights, architecture, mixed_precision=config.mixed_precision
        )
    if "logits" in config.embed_output_names and model.linear_head is None:
        raise errors.UserError(
            f"--embed_outputs={config.embed_outputs} asks for logits, and the network of "
            f"--checkpoint={config.checkpoint} has no linear head; leave them out."
        )
    return model


def _without_unreadable(
    config: config_lib.Config, source: sources.Source, splits: list[str]
) -> sources.Source:
    """Excludes unreadable images, if some are allowed; their list is stored with the embeddings."""
    if not config.max_bad_images:
        return source
    with_folder = dataclasses.replace(config, model_dir=config.embeddings)
    return unreadable.exclude(with_folder, source, splits, with_pillow=dataset.has_pillow(config))


def _excluding(source: sources.Source, split: str, part: str) -> sources.Source:
    """Returns the data set in which a part lacks the images that its split lacks."""
    excluded = set(source.excluded.get(split, ()))
    if not excluded:
        return source
    here = tuple(name for name in source.example_names(part) if name in excluded)
    return dataclasses.replace(source, excluded={part: here})


def _manifest(
    config: config_lib.Config,
    weights: weights_lib.Weights,
    model: simclr.SimCLR,
    source: sources.Source,
    splits: list[str],
    num_shards: int,
) -> manifest_lib.Manifest:
    """Returns the manifest of embeddings of which no shard is finished."""
    side = model.architecture.image_size
    shapes = model(tf.zeros([1, side, side, model.architecture.pixels.channels]))
    return manifest_lib.Manifest(
        weights=features.fingerprint(model),
        checkpoint=weights.origin,
        step=weights.step,
        image_size=side,
        architecture=_json_of(model.architecture),
        mixed_precision=config.mixed_precision,
        data={
            **{name: getattr(config, name) for name in _DATA},
            # Folders of older versions have no such entry.
            **({} if config.group is None else {"group": config.group}),
            **dataset.channel_settings(config),
        },
        dataset=config.dataset,
        classes=source.class_names,
        splits={split: _names_hash(source, split) for split in splits},
        excluded={split: source.excluded[split] for split in splits if source.excluded.get(split)},
        outputs={name: int(shapes[name].shape[-1]) for name in config.embed_output_names},
        shard_examples=config.embed_shard_examples,
        num_shards=num_shards,
    )


def _json_of(architecture: simclr.Architecture) -> dict[str, Any]:
    """Returns an architecture as it is read from JSON again."""
    described = json.loads(json.dumps(dataclasses.asdict(architecture)))
    if architecture.pixels.is_rgb and not architecture.pixels.is_standardized:
        del described["pixels"]  # Embeddings of older versions have no such entry.
    if not architecture.several_labels:
        del described["several_labels"]
    return described


def _with_finished(manifest: manifest_lib.Manifest, folder: str) -> manifest_lib.Manifest:
    """Returns the manifest with the shards that are finished in a folder.

    Raises:
        UserError: if the folder has other embeddings.
    """
    stored = manifest_lib.read(folder)
    if stored is None:
        return manifest
    manifest.check_same(stored, folder)
    finished = {
        number: shard for number, shard in stored.shards.items() if shards.is_intact(folder, shard)
    }
    if finished:
        console.say(
            f"{folder} has {len(finished):,} of {text.count(manifest.num_shards, 'shard')}, which "
            "are kept."
        )
    return dataclasses.replace(manifest, shards=finished)


def _names_hash(source: sources.Source, split: str) -> str:
    """Returns a hash of the names of all images of a split, wherever they are."""
    digest = hashlib.sha256()
    for name in source.reader.example_names(source.slices(split)):
        digest.update(f"{name}\n".encode())
    return digest.hexdigest()


def _class_names(source: sources.Source, labels: np.ndarray) -> list[str | None]:
    """Returns the class of each image; None without one, and where images may have several."""
    if source.several_labels:
        return [None] * len(labels)
    names = source.class_names
    return [None if names is None or label < 0 else names[label] for label in labels]


def _lists(source: sources.Source, labels: np.ndarray) -> dict[str, list[list[str]]]:
    """Returns the classes (n, c) that images show, and those that are not known, by column."""
    if not source.several_labels:
        return {}
    names = np.array(source.class_names, object)
    columns = {"labels": indicators.PRESENT, "labels_not_known": indicators.NEITHER}
    return {
        column: [names[of_image == value].tolist() for of_image in labels]
        for column, value in columns.items()
    }
