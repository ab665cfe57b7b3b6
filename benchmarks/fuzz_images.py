"""Reads thousands of damaged images, and counts crashes, hangs and refusals for a false reason.

    python benchmarks/fuzz_images.py                  prints a table; minutes
    python benchmarks/fuzz_images.py --files=300      takes a minute, most of it to start
    python benchmarks/fuzz_images.py --json           also prints a JSON object as the last line

Each file passes through what check_data does, through the input of training, and through
`serving_bytes_strict` of an exported network. They must agree whether it can be used, and the
reason must be true. All of this is done in another process, so that a crash of a library is
counted, too; it is then started again. The exit status is 1 if anything is counted. The files are
a function of --seed and their number, and `--first=NUMBER --files=1` repeats one.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
import dataclasses
import io
import json
import os
import queue
import re
import resource
import subprocess
import sys
import tempfile
import threading
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

from PIL import Image

import simclr_tf  # noqa: F401  (chooses Keras 2 before TensorFlow is imported)

import tensorflow as tf  # isort: skip

from benchmarks import mutated_images
from simclr_tf import console
from simclr_tf.data import crops, decode, inspection, kinds, policies
from simclr_tf.models import simclr
from simclr_tf.serving import export, inputs

_STAGES = ("inspection", "training", "serving")
# Growth of memory beyond that of one file that is decoded: the largest takes 300 MB, and some
# copies of it.
_MOST_GROWTH = 2**30
_MOST_LISTED = 20
# By the name of a format in Pillow: its kind.
_PILLOW_NAMES = {
    "JPEG": kinds.JPEG,
    "PNG": kinds.PNG,
    "GIF": kinds.GIF,
    "BMP": kinds.BMP,
    "WEBP": kinds.WEBP,
    "TIFF": kinds.TIFF,
}


# --- the process that reads the images


class _Reader:
    """Reads an image in all three ways."""

    def __init__(self) -> None:
        architecture = simclr.Architecture(8, 1, "small", 8, "linear", 2, 8, 0, 0.9, None)
        self._folder = tempfile.TemporaryDirectory()
        folder = export.export(simclr.SimCLR(architecture, seed=0), self._folder.name, 1)
        self._model = tf.saved_model.load(folder)
        policy = policies.Policy(8, ops=())  # The whole image, so that all of it is decoded.
        self._crop = tf.function(
            lambda encoded: crops.crop_encoded(encoded, tf.constant([0, 1]), policy, num_views=1),
            input_signature=[tf.TensorSpec([], tf.string)],
            autograph=False,
        )

    def problems(self, encoded: bytes) -> Iterator[tuple[str, str]]:
        """Yields (stage, "") before each stage, and (stage, problem) for what is wrong."""
        yield "inspection", ""
        example = {"name": b"image", "image": encoded, "label": 0}
        reason = inspection.inspect_example(example).unreadable
        problem = reason and _false_reason(encoded, reason)
        if problem:
            yield "inspection", problem
        yield "training", ""
        yield from self._train(encoded, reason)
        yield "serving", ""
        yield from self._serve(encoded, reason)

    def _train(self, encoded: bytes, reason: str | None) -> Iterator[tuple[str, str]]:
        try:
            self._crop(encoded)
        except tf.errors.OpError as error:
            if not reason:
                yield "training", f"refuses what inspection accepts: {error.message}"
            if not decode.is_decode_error(error):
                yield "training", f"an error that is not of decoding: {error.message}"
        else:
            if reason:
                yield "training", f"accepts what inspection refuses: {reason}"

    def _serve(self, encoded: bytes, reason: str | None) -> Iterator[tuple[str, str]]:
        needs_pillow = bool(decode.needs_pillow(tf.constant(encoded)))
        try:
            self._model.signatures["serving_bytes_strict"](tf.constant([encoded]))
        except tf.errors.OpError as error:
            if needs_pillow and "The image is" not in error.message:
                yield "serving", f"refuses without a sentence: {error.message}"
            if not (needs_pillow or reason or _too_long(encoded)):
                yield "serving", f"refuses what inspection accepts: {error.message}"
        else:
            if needs_pillow or reason:
                yield "serving", f"accepts what should be refused: {reason}"


def _too_long(encoded: bytes) -> bool:
    """Says whether serving refuses an image for its sides, which only it limits."""
    with Image.open(io.BytesIO(encoded), formats=list(_PILLOW_NAMES)) as image:
        return max(image.size) > inputs.MAX_ASPECT * min(image.size)


def _false_reason(encoded: bytes, reason: str) -> str | None:
    """Returns what is false about the reason of a refusal, by what Pillow reads in the header."""
    try:
        with Image.open(io.BytesIO(encoded), formats=list(_PILLOW_NAMES)) as image:
            # Else it is MPO, a JPEG with further images.
            kind = _PILLOW_NAMES.get(image.format or "", kinds.JPEG)
            pixels = image.width * image.height
    except Exception:  # Pillow may raise anything on damaged files.
        return None
    if "more than" in reason and pixels <= decode.MAX_PIXELS:
        return f"{reason!r} of {pixels:,} pixels"
    named = re.match(r"is an? ([\w ]+) image", reason)
    if reason.startswith(("is not", "is empty")) or (named and not named[1].startswith(kind)):
        return f"{reason!r} of a {kind}"
    return None


def _work(seed: int) -> None:
    """Reads numbers of files from the standard input, and reports on each as a line of JSON."""
    warnings.simplefilter("ignore")
    Image.MAX_IMAGE_PIXELS = None
    reader, images = _Reader(), mutated_images.originals()
    for image in images:
        list(reader.problems(image))
    start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _report(ready=True)
    for line in sys.stdin:
        encoded = mutated_images.mutated(images, seed, int(line))
        stage = _STAGES[0]
        try:
            for stage, problem in reader.problems(encoded):
                _report(stage=stage, problem=problem)
        except Exception as error:  # Anything but a refusal is a crash.
            _report(stage=stage, problem=f"crash: {type(error).__name__}: {error}")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        _report(done=True, growth=1024 * (peak - start), kind=kinds.kind_of(encoded))


def _report(**values: object) -> None:
    print(json.dumps(values), flush=True)


# --- the process that counts


@dataclasses.dataclass
class _Counts:
    """What was found.

    Attributes:
        crashes: by stage.
        hangs: by stage.
        false_reasons: by stage; refusals without a true reason, and disagreements.
        growth: bytes by which the peak of the memory grew.
        kinds: number of files of each kind.
        listed: sentences about the first problems.
    """

    crashes: dict[str, int] = dataclasses.field(default_factory=lambda: dict.fromkeys(_STAGES, 0))
    hangs: dict[str, int] = dataclasses.field(default_factory=lambda: dict.fromkeys(_STAGES, 0))
    false_reasons: dict[str, int] = dataclasses.field(
        default_factory=lambda: dict.fromkeys(_STAGES, 0)
    )
    growth: int = 0
    kinds: dict[str, int] = dataclasses.field(default_factory=dict)
    listed: list[str] = dataclasses.field(default_factory=list)

    def add(self, counts: dict[str, int], index: int, stage: str, problem: str) -> None:
        """Counts a problem of a file."""
        counts[stage] += 1
        self.listed.append(f"file {index}, {stage}: {' '.join(problem.split())[:300]}")

    @property
    def total(self) -> int:
        """Number of problems."""
        counted = (self.crashes, self.hangs, self.false_reasons)
        return sum(sum(counts.values()) for counts in counted) + (self.growth > _MOST_GROWTH)


class _Worker:
    """The process that reads the images."""

    def __init__(self, seed: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, os.path.abspath(__file__), "--worker", f"--seed={seed}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()
        if not self.next_report(600.0):
            raise RuntimeError("The process that reads the images does not start.")

    def _listen(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            if line.startswith("{"):  # Libraries may print, too.
                self._lines.put(line)
        self._lines.put(None)

    def send(self, index: int) -> None:
        """Starts with a file."""
        assert self._process.stdin
        self._process.stdin.write(f"{index}\n")
        self._process.stdin.flush()

    def next_report(self, timeout: float) -> dict | None:
        """Returns the next report; None if the process has ended. Raises queue.Empty."""
        line = self._lines.get(timeout=timeout)
        return json.loads(line) if line else None

    def stop(self) -> int:
        """Ends the process and returns its exit status."""
        self._process.kill()
        return self._process.wait()


def _read(worker: _Worker, index: int, timeout: float, counts: _Counts) -> bool:
    """Has a file read, and counts its problems; returns whether the process can read another."""
    stage = _STAGES[0]
    worker.send(index)
    while True:
        try:
            report = worker.next_report(timeout)
        except queue.Empty:
            counts.add(counts.hangs, index, stage, f"took more than {timeout:.0f} s")
            return False
        if report is None:
            counts.add(counts.crashes, index, stage, "the process ended")
            return False
        if report.get("done"):
            counts.growth = max(counts.growth, report["growth"])
            kind = report["kind"] or "unknown"
            counts.kinds[kind] = counts.kinds.get(kind, 0) + 1
            return True
        stage, problem = report["stage"], report["problem"]
        if problem.startswith("crash: "):
            counts.add(counts.crashes, index, stage, problem)
        elif problem:
            counts.add(counts.false_reasons, index, stage, problem)


def fuzz(first: int, files: int, seed: int, timeout: float) -> _Counts:
    """Reads files in another process, which is started again when it crashes or hangs."""
    counts, worker = _Counts(), _Worker(seed)
    with console.Progress("damaged images", files) as progress:
        for number, index in enumerate(range(first, first + files), 1):
            if not _read(worker, index, timeout, counts):
                worker.stop()
                worker = _Worker(seed)
            progress.update(number, f"{counts.total} problems")
    worker.stop()
    return counts


def _print(counts: _Counts, files: int) -> None:
    kinds_ = ", ".join(f"{count:,} {kind}" for kind, count in sorted(counts.kinds.items()))
    print(f"\n{files:,} files ({kinds_})")
    print(f"  {'':12}" + "".join(f"{title:>16}" for title in ("crashes", "hangs", "false reasons")))
    for stage in _STAGES:
        row = (counts.crashes[stage], counts.hangs[stage], counts.false_reasons[stage])
        print(f"  {stage:12}" + "".join(f"{count:16,}" for count in row))
    print(
        f"  the peak of the memory grew by {counts.growth / 2**20:,.0f} MiB, of which "
        f"{_MOST_GROWTH / 2**20:,.0f} MiB are allowed"
    )
    for sentence in counts.listed[:_MOST_LISTED]:
        print(f"  {sentence}")


def main() -> int:
    """Reads the images, prints the counts, and returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=10_000, help="number of damaged images")
    parser.add_argument("--first", type=int, default=0, help="number of the first one")
    parser.add_argument("--seed", type=int, default=0, help="seed of the damage")
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds for a file")
    parser.add_argument("--json", action="store_true", help="print a JSON object as the last line")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        _work(arguments.seed)
        return 0
    counts = fuzz(arguments.first, arguments.files, arguments.seed, arguments.timeout)
    _print(counts, arguments.files)
    if arguments.json:
        result = dataclasses.asdict(counts)
        del result["listed"]
        print(json.dumps({"files": arguments.files, **result}))
    return 1 if counts.total else 0


if __name__ == "__main__":
    sys.exit(main())
