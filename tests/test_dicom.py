"""DICOM images are read in the units of their files, and what is no grey image is refused."""

import io
import sys

import numpy as np
import pydicom
from pydicom import dataset as datasets
from pydicom import encaps, uid
import pytest
import tensorflow as tf

from simclr_tf import errors, pixel_format
from simclr_tf.data import dicom, first_format, inspection, kinds, scan, sources, stored

_STORED = np.arange(20 * 17, dtype=np.uint16).reshape(20, 17)
# What a CT image, of the least and the greatest values of 12 bits among others, has in its file.
_STORED[0, :3] = (0, 4095, 1024)


def _dataset(array: np.ndarray, *, bits: int = 12, **fields) -> datasets.Dataset:
    """Returns the data set of a grey image."""
    made = datasets.Dataset()
    made.file_meta = datasets.FileMetaDataset()
    made.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = uid.CTImageStorage
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = uid.generate_uid()
    made.PatientName = "Someone^Known"
    made.StudyDescription = "Findings: none"
    made.Rows, made.Columns = array.shape
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.BitsAllocated, made.BitsStored, made.HighBit = 16, bits, bits - 1
    made.PixelRepresentation = int(array.dtype.kind == "i")
    made.PixelData = array.tobytes()
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def _bytes(made: datasets.Dataset) -> bytes:
    content = io.BytesIO()
    made.save_as(content, enforce_file_format=True)
    return content.getvalue()


def _file(array: np.ndarray = _STORED, **fields) -> bytes:
    return _bytes(_dataset(array, **fields))


def _read(*arguments, **fields) -> np.ndarray:
    return dicom.read(_file(*arguments, **fields))[..., 0]


def test_values_are_those_after_the_rescale_as_float32():
    made = dicom.read(_file(RescaleSlope=1, RescaleIntercept=-1024))
    assert (made.shape, made.dtype) == ((20, 17, 1), np.float32)
    np.testing.assert_array_equal(made[..., 0], _STORED.astype(np.float32) - 1024)
    np.testing.assert_array_equal(_read(), _STORED)
    tilted = _read(RescaleSlope="0.125", RescaleIntercept="7.5")
    np.testing.assert_array_equal(tilted, _STORED.astype(np.float32) / 8 + 7.5)


def test_signed_values_keep_their_sign():
    signed = _STORED.astype(np.int16) - 2048
    np.testing.assert_array_equal(_read(signed, RescaleSlope=2, RescaleIntercept=1), 2 * signed + 1)


def test_a_table_of_the_modality_is_applied():
    table = datasets.Dataset()
    table.LUTDescriptor, table.ModalityLUTType = [4, 10, 16], "US"
    table.LUTData = np.array([5, 50, 500, 5000], np.uint16).tobytes()
    stored = np.array([[0, 10, 11], [12, 13, 99]], np.uint16)
    made = _read(stored, ModalityLUTSequence=[table])
    np.testing.assert_array_equal(made, [[5, 5, 50], [500, 5000, 5000]])


def test_the_rescale_of_enhanced_images_is_found_in_their_groups():
    item, group = datasets.Dataset(), datasets.Dataset()
    item.RescaleSlope, item.RescaleIntercept, item.RescaleType = 2, -5, "HU"
    group.PixelValueTransformationSequence = [item]
    for name in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        made = _read(**{name: [group], "NumberOfFrames": 1})
        np.testing.assert_array_equal(made, 2 * _STORED.astype(np.float32) - 5)


@pytest.mark.parametrize("dtype", ["uint16", "int16"])
def test_where_low_values_are_bright_values_are_mirrored_within_their_range(dtype):
    stored = _STORED.astype(dtype) - (2048 if dtype == "int16" else 0)
    fields = {"RescaleSlope": 2, "RescaleIntercept": -100}
    bright = _read(stored, **fields).astype(np.float64)
    made = _read(stored, PhotometricInterpretation="MONOCHROME1", **fields)
    least, greatest = bright[0, 0], bright[0, 1]  # Of the values 0 and 4095 of 12 bits.
    np.testing.assert_array_equal(made, least + greatest - bright)
    assert (made.min(), made.max()) == (least, greatest)


def test_padding_becomes_the_least_value_of_the_image():
    stored = _STORED.astype(np.int16) + 7
    stored[2:4] = -2000
    made = _read(stored, bits=16, RescaleIntercept=-1024, RescaleSlope=1, PixelPaddingValue=-2000)
    assert made.min() == 7 - 1024
    assert (made[2:4] == made.min()).all()
    np.testing.assert_array_equal(np.delete(made, [2, 3], 0), np.delete(stored, [2, 3], 0) - 1024.0)
    limits = {"PixelPaddingValue": -2000, "PixelPaddingRangeLimit": 40}
    assert _read(stored, bits=16, **limits).min() == stored[stored > 40].min()
    all_padding = np.full_like(stored, -2000)
    np.testing.assert_array_equal(_read(all_padding, bits=16, **limits), all_padding)


def test_the_window_is_not_applied():
    made = _read(WindowCenter=100, WindowWidth=50, RescaleSlope=1, RescaleIntercept=0)
    np.testing.assert_array_equal(made, _STORED)


def test_nothing_about_the_patient_is_kept(monkeypatch):
    kept = []
    read = pydicom.dcmread

    def recorded(*arguments, **settings):
        kept.append(read(*arguments, **settings))
        return kept[0]

    monkeypatch.setattr(pydicom, "dcmread", recorded)
    dicom.read(_file())
    assert "Rows" in kept[0]
    assert not {"PatientName", "StudyDescription", "SOPInstanceUID"} & set(kept[0].dir())


def test_images_compressed_without_loss_are_decoded_where_the_packages_are():
    made = _dataset(_STORED, RescaleSlope=1, RescaleIntercept=-1024)
    made.compress(uid.RLELossless, encoding_plugin="pydicom")
    np.testing.assert_array_equal(dicom.read(_bytes(made))[..., 0], _STORED - 1024.0)


def _compressed(syntax: uid.UID) -> bytes:
    made = _dataset(_STORED)
    made.file_meta.TransferSyntaxUID = syntax
    made.PixelData = encaps.encapsulate([bytes(40)])
    return _bytes(made)


def _without(name: str) -> bytes:
    made = _dataset(_STORED)
    delattr(made, name)
    return _bytes(made)


_BAD = {
    "compressed so that packages are missing": (
        _compressed(uid.JPEGLSLossless),
        r"compressed as JPEG-LS Lossless .*, for which pydicom needs more packages; install them "
        r"\(pip install 'pylibjpeg\[all\]'\), or decompress the images",
    ),
    "video": (_compressed(uid.MPEG2MPML), "compressed as MPEG2 .* which pydicom cannot decode"),
    "several frames": (_file(NumberOfFrames=3), "a DICOM file of 3 frames; store each as an image"),
    "colours": (
        _file(PhotometricInterpretation="RGB"),
        r"in colour \(RGB\), of which only grey ones are read; convert it to PNG",
    ),
    "no pixels": (_without("PixelData"), "a DICOM file without an image; leave it out"),
    "fewer pixels": (_file(PixelData=bytes(9)), "pydicom cannot read .*less than expected"),
    "no height": (_without("Rows"), "that pydicom cannot read"),
    "a cut header": (_file()[:140], "is a DICOM file"),
}


@pytest.mark.parametrize(("content", "reason"), _BAD.values(), ids=_BAD)
def test_what_is_no_grey_image_is_refused(content, reason, monkeypatch):
    for name in ("jpeg_ls", "pylibjpeg", "gdcm"):  # As if these packages were not installed.
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(kinds.RefusedError, match=reason):
        dicom.read(content)


def test_without_the_package_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(kinds.RefusedError, match="pip install pydicom"):
        dicom.read(_file())


@pytest.fixture
def folder(tmp_path):
    """Files as hospitals name them, and others beside them."""
    for name in ("a.dcm", "b.DICOM", "IM000001", "1.2.840.10008.5"):
        (tmp_path / name).write_bytes(_file(RescaleSlope=1, RescaleIntercept=-1024))
    (tmp_path / "DICOMDIR").write_bytes(_file())
    (tmp_path / "1.2.3").write_bytes(b"")
    (tmp_path / "notes").write_bytes(bytes(128) + b"DICT")
    return tmp_path


_IMAGES = ["1.2.840.10008.5", "IM000001", "a.dcm", "b.DICOM"]


def test_files_are_images_by_their_extension_or_by_their_first_bytes(folder):
    listing = scan.scan(str(folder))
    assert sorted(listing.images) == _IMAGES
    assert sorted(listing.others) == ["1.2.3", "DICOMDIR", "notes"]


def test_a_folder_of_them_is_one_channel_of_float32(folder):
    (folder / "b.DICOM").write_bytes(_file(NumberOfFrames=2))
    source = sources.open_source("image_folder", data_dir=str(folder), seed=0)
    pixels = pixel_format.of_dtype(1, "float32")
    assert first_format.find(source, "train[:1]", "auto") == pixels
    decode = tf.function(stored.decode_stored, autograph=False)
    (example,) = source.examples("train[:1]")
    np.testing.assert_array_equal(decode(example["image"], pixels)[..., 0], _STORED - 1024.0)
    found = {
        one.name: one.unreadable for one in inspection.inspect(source.with_pixels(pixels), "train")
    }
    assert sorted(found) == _IMAGES
    assert {name: why for name, why in found.items() if why} == {
        "b.DICOM": "is a DICOM file of 2 frames; store each as an image, such as .npy"
    }


def test_where_only_tensorflow_decodes_they_are_refused(folder):
    content = tf.constant((folder / "a.dcm").read_bytes())
    pixels = pixel_format.of_dtype(1, "float32")
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"PNG, JPEG or \.npy"):
        stored.decode_stored(content, pixels, with_python=False)
    refusal = "The image is a DICOM image, which TensorFlow alone cannot read (convert it to .npy)."
    assert kinds.refusal_in_graph(content).numpy().decode() == refusal


def test_the_first_image_that_cannot_be_read_is_named(folder):
    for name in _IMAGES:
        (folder / name).write_bytes(_file(PhotometricInterpretation="YBR_FULL"))
    source = sources.open_source("image_folder", data_dir=str(folder), seed=0)
    with pytest.raises(errors.UserError, match=r"The image .* in colour .*convert it to PNG\.$"):
        first_format.find(source, "train", "auto")
