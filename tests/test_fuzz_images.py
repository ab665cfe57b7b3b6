"""The benchmark that reads damaged images notices what it is meant to count."""

import io
import queue
import types
from typing import Any

from PIL import Image
import pytest
import tensorflow as tf

from benchmarks import fuzz_images, mutated_images
from simclr_tf.data import decode


def _png():
    file = io.BytesIO()
    Image.new("RGB", (4, 3)).save(file, "PNG")
    return file.getvalue()


def _refuse(*args):
    raise tf.errors.InvalidArgumentError(None, None, "no")


def _reader(crop, serve):
    """Returns a reader whose last two ways are functions of the test."""
    reader = object.__new__(fuzz_images._Reader)
    reader._crop = crop
    reader._model = types.SimpleNamespace(signatures={"serving_bytes_strict": serve})
    return reader


_in_graph = tf.function(decode.decode_image, autograph=False)


def _problems(encoded, crop=_in_graph, serve=lambda files: decode.decode_image(files[0])):
    found = _reader(crop, serve).problems(encoded)
    return [(stage, problem.split(":")[0]) for stage, problem in found if problem]


def test_an_intact_and_a_damaged_image_are_no_problems():
    assert _problems(_png()) == _problems(_png()[:40]) == []


def test_disagreements_are_problems():
    refuses, accepts = "refuses what inspection accepts", "accepts what inspection refuses"
    assert ("training", refuses) in _problems(_png(), crop=_refuse)
    assert _problems(_png(), serve=_refuse) == [("serving", refuses)]
    damaged = _png()[:40]
    assert _problems(damaged, crop=lambda encoded: None) == [("training", accepts)]
    assert _problems(damaged, serve=lambda files: None)[0][0] == "serving"


@pytest.mark.parametrize(
    "reason",
    [
        "has more than 100,000,000 pixels",
        "is not a JPEG, PNG or BMP image",
        "is a TIFF image that Pillow cannot read (no)",
        "is empty",
    ],
)
def test_a_false_reason_is_a_problem(reason):
    assert fuzz_images._false_reason(_png(), reason)
    assert fuzz_images._false_reason(b"a letter", reason) is None
    assert fuzz_images._false_reason(_png(), "is corrupt or truncated") is None


class _Worker:
    """Stands for the other process."""

    def __init__(self, *reports):
        self._reports = list(reports)

    def send(self, index):
        assert index == 7

    def next_report(self, timeout):
        report = self._reports.pop(0)
        if report is queue.Empty:
            raise report
        return report


STAGE = {"stage": "serving", "problem": ""}
DONE = {"done": True, "growth": 5, "kind": None}


@pytest.mark.parametrize(
    ("last", "counted"),
    [
        (None, "crashes"),
        (queue.Empty, "hangs"),
        ({**STAGE, "problem": "crash: TypeError: no"}, "crashes"),
        ({**STAGE, "problem": "refuses"}, "false_reasons"),
    ],
)
def test_what_goes_wrong_is_counted_at_its_stage(last, counted):
    counts = fuzz_images._Counts()
    worker: Any = _Worker(STAGE, last, DONE)
    lasts = fuzz_images._read(worker, 7, 1.0, counts)
    assert lasts == (last not in (None, queue.Empty))
    assert counts.total == 1 and getattr(counts, counted)["serving"] == 1
    assert counts.listed[0].startswith("file 7, serving: ")


def test_growth_of_memory_is_counted():
    counts = fuzz_images._Counts()
    worker: Any = _Worker({**DONE, "growth": 2**31})
    fuzz_images._read(worker, 7, 1.0, counts)
    assert counts.total == 1


def test_damage_depends_on_the_seed_and_the_number_alone():
    images = mutated_images.originals()
    some = [mutated_images.mutated(images, 0, index) for index in range(40)]
    assert some == [mutated_images.mutated(images, 0, index) for index in range(40)]
    assert some != [mutated_images.mutated(images, 1, index) for index in range(40)]
    assert len(set(some) - set(images)) > 30
    sizes = {Image.open(io.BytesIO(image)).size for image in images}
    assert {tuple(sorted(size)) for size in sizes} == {
        (mutated_images.HEIGHT, mutated_images.WIDTH)
    }
