"""Channels that are files of their own, and arrays of tensorflow-datasets."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
import test_stored

from simclr_tf import errors, pixel_format
from simclr_tf.data import channel_files, first_format, in_memory, sources, stored

BANDS = ("2", "8", "11")


def _image(index):
    values = np.random.default_rng(index).integers(0, 9000, (9, 8, 3))
    return values.astype(np.uint16)


def _write(root, encode, pattern="{id}_B{channel}.tif", count=4):
    for index in range(count):
        for band, name in enumerate(BANDS):
            path = root / f"c{index % 2}" / pattern.format(id=f"s{index}", channel=name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode(_image(index)[..., band]))
    return root


def _open(root, pattern, names=None):
    return sources.open_source(
        "image_folder", data_dir=str(root), seed=0, channel_files=pattern, channel_names=names
    )


_ENCODERS = {
    "{id}_B{channel}.tif": test_stored.tiff,
    "B{channel}/{id}.npy": test_stored.npy,
    "{id}_{channel}.png": lambda plane: tf.io.encode_png(plane[..., np.newaxis]).numpy(),
}


def test_a_folder_whose_files_look_like_channels_has_a_note(tmp_path):
    root = _write(tmp_path, test_stored.tiff)
    (note,) = (one for one in _open(root, None).notes if "--channel_files" in one)
    assert note == (
        "Each of 4 images seems to be 3 files, one for each of B2, B8, B11, and is taken for 3 "
        "images. If they are its channels, use --channel_files={id}_{channel}.tif."
    )
    said = "{id}_{channel}.tif"
    assert _open(root, said).channel_names == ("B2", "B8", "B11")
    assert not any("--channel_files" in one for one in _open(root, said).notes)


@pytest.mark.parametrize(
    "names",
    [
        [],
        ["a_B1.tif", "a_B2.tif"],  # One image.
        ["a_B1.tif", "b_B1.tif"],  # One channel.
        ["a_B1.tif", "a_B2.tif", "b_B1.tif"],  # The last one lacks a channel.
        ["a_B1.tif", "a_B2.tif", "b_B1.tif", "b_B2.npy"],
        ["cat_1.jpg", "cat_2.jpg", "dog_1.jpg", "dog_2.jpg"],
        ["p1_slice0.png", "p1_slice1.png", "p2_slice0.png", "p2_slice1.png"],
        ["a_z1.tif", "a_z2.tif", "b_z1.tif", "b_z2.tif"],
        ["a.tif", "b.tif"],
        [f"{image}_B{channel}.tif" for image in "ab" for channel in range(65)],
    ],
)
def test_other_names_have_no_note_on_channels(names):
    assert channel_files.note(names) is None


def test_words_are_channels():
    names = [f"{image}.{word}.tif" for image in ("a", "b") for word in ("dapi", "gfp")]
    assert "one for each of dapi, gfp, and" in channel_files.note(names)


def test_numbers_are_channels_of_files_that_are_no_photographs():
    names = [f"d/{image}-{channel}.npy" for image in ("a", "b_1") for channel in range(64)]
    assert "use --channel_files={id}-{channel}.npy." in channel_files.note(names)


@pytest.mark.parametrize("pattern", _ENCODERS)
def test_the_files_of_an_image_become_its_channels(pattern, tmp_path):
    root = _write(tmp_path, _ENCODERS[pattern], pattern)
    suffix = pattern[-4:]
    (root / f"c0/notes{suffix}").write_bytes(b"")
    source = _open(root, pattern)
    assert source.channel_names == BANDS  # In the order of their numbers.
    assert source.class_names == ("c0", "c1")
    assert sum(source.splits.values()) == 4
    assert f"Skipped what is not an image: 1 file (c0/notes{suffix})." in source.notes
    pixels = first_format.find(source, "train", "auto")
    assert pixels == pixel_format.of_dtype(3, "uint16")
    for example in source.examples("train").as_numpy_iterator():
        index = int(example["name"].decode()[-1])
        made = stored.decode_stored(tf.constant(example["image"]), pixels)
        np.testing.assert_array_equal(made, _image(index))
    assert source.num_bytes("train") > 0


def test_named_channels_are_read_in_their_order(tmp_path):
    source = _open(_write(tmp_path, test_stored.tiff), "{id}_B{channel}.tif", ("11", "2"))
    pixels = pixel_format.of_dtype(2, "uint16")
    example = next(source.examples("train").as_numpy_iterator())
    made = stored.decode_stored(tf.constant(example["image"]), pixels)
    index = int(example["name"].decode()[-1])
    np.testing.assert_array_equal(made, _image(index)[..., [2, 0]])


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ("{id}.tif", "must have {id} and {channel} once each"),
        ("{id}_C{channel}.tif", "matches none of the 12 image files"),
    ],
)
def test_a_pattern_that_does_not_fit_is_refused(pattern, problem, tmp_path):
    root = _write(tmp_path, test_stored.tiff)
    with pytest.raises(errors.ArgumentError) as caught:
        _open(root, pattern)
    assert problem in str(caught.value)


def test_an_image_that_lacks_a_channel_is_named(tmp_path):
    root = _write(tmp_path, test_stored.tiff)
    (root / "c1/s3_B8.tif").unlink()
    with pytest.raises(errors.ArgumentError, match=r"finds no file of 8 for c1/s3 and 0 other"):
        _open(root, "{id}_B{channel}.tif")
    names = ("2", "11")
    assert sum(_open(root, "{id}_B{channel}.tif", names).splits.values()) == 4


def test_what_is_wrong_with_the_files_is_said_where_the_image_is_decoded():
    plane, pixels = _image(0)[..., 0], pixel_format.of_dtype(2, "uint16")
    grey = test_stored.tiff(plane)
    colour = tf.io.encode_png(tf.cast(_image(0) // 99, tf.uint8)).numpy()
    wrong = {
        "has channels of different sizes or types (8 x 8 of uint16, 9 x 8 of uint16)": (
            (grey, test_stored.tiff(plane[1:]))
        ),
        "has a file that is not grey, but RGB": (grey, colour),
        "is a TIFF image that tifffile cannot read": (grey, grey[:40]),
    }
    for problem, contents in wrong.items():
        encoded = channel_files.joined(*contents)
        assert problem in stored.problem(encoded, pixels)
        with pytest.raises(tf.errors.InvalidArgumentError, match="The image"):
            stored.decode_stored(tf.constant(encoded), pixels)


_FEATURES = {
    "of float32": tfds.features.Tensor(shape=(5, 4, 13), dtype=np.float32),
    "of uint16": tfds.features.Tensor(shape=(5, 4, 2), dtype=np.uint16),
    "of int64": tfds.features.Tensor(shape=(5, 4, 2), dtype=np.int64),
    "of uint8, three channels": tfds.features.Tensor(shape=(5, 4, 3), dtype=np.uint8),
    "as pictures of 16 bits": tfds.features.Image(shape=(5, 4, 1), dtype=np.uint16),
    "as pictures of floats": tfds.features.Image(shape=(5, 4, 1), dtype=np.float32),
}


class Arrays(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Numbered arrays."""

    VERSION = tfds.core.Version("1.0.0")
    feature = _FEATURES["of float32"]

    def _info(self):
        features = {"sentinel": self.feature, "label": tfds.features.ClassLabel(num_classes=2)}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for index in range(3):
            yield index, {"sentinel": self.array(index), "label": index % 2}

    @classmethod
    def array(cls, index):
        values = np.random.default_rng(index).integers(0, 250, cls.feature.shape)
        return values.astype(cls.feature.np_dtype)


@pytest.mark.parametrize("stored_as", _FEATURES)
def test_arrays_of_tensorflow_datasets_are_read_without_loss(stored_as, tmp_path, monkeypatch):
    monkeypatch.setattr(Arrays, "feature", _FEATURES[stored_as])
    Arrays(data_dir=str(tmp_path)).download_and_prepare()
    source = sources.open_source("arrays", data_dir=str(tmp_path), seed=0)
    pixels = first_format.find(source, "train", "auto")
    channels, dtype = _FEATURES[stored_as].shape[-1], np.dtype(_FEATURES[stored_as].np_dtype).name
    kept = pixel_format.natural_dtype(dtype)
    assert kept is not None
    assert pixels == pixel_format.of_dtype(channels, kept)
    assert source.image_shape == (5, 4)
    source = source.with_pixels(pixels)
    (table,) = in_memory.table(source, "train")
    want = np.stack([Arrays.array(index) for index in range(3)])
    found = sorted(table["image"].numpy().tolist())
    assert found == sorted(want.astype(kept).tolist())
    assert table["image"].dtype == kept


def test_tensors_in_tfrecord_files_are_read_without_loss(tmp_path):
    with tf.io.TFRecordWriter(str(tmp_path / "train-00000-of-00001")) as writer:
        for index in range(3):
            content = tf.io.serialize_tensor(_image(index)).numpy()
            feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[content]))
            example = tf.train.Example(features=tf.train.Features(feature={"x": feature}))
            writer.write(example.SerializeToString())
    dataset = f"tfrecord:{tmp_path}/*"
    source = sources.open_source(dataset, data_dir=None, seed=0, image_key="x", label_key="")
    pixels = first_format.find(source, "train", "auto")
    assert pixels == pixel_format.of_dtype(3, "uint16")
    for index, example in enumerate(source.examples("train").as_numpy_iterator()):
        made = stored.decode_stored(tf.constant(example["image"]), pixels)
        np.testing.assert_array_equal(made, _image(index))
