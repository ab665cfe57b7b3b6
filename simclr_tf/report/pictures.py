"""The figures and pictures of a run as data: URIs, for a page without other files."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
import dataclasses
import io

from PIL import Image

from simclr_tf.report import run_files

# File of an evaluation -> its title and what it shows.
_TITLES = {
    "confusion.svg": ("Confusion", "How often each class was taken for each other one."),
    "reliability.svg": ("Reliability", "Accuracy against predicted probability."),
    "risk_coverage.svg": ("Risk and coverage", "Error among the most certain predictions."),
    "map.svg": ("Map", "The features in two dimensions; distances between groups mean nothing."),
    "probes.svg": ("What the features know", "Accuracy of classifiers of what was done to images."),
    "robustness.svg": ("Corruptions", "Accuracy by severity."),
    "shifts.svg": ("Other data sets", "Accuracy on other data sets of the same classes."),
    "ood.svg": ("Images of other classes", "How well each score separates them."),
    "mistakes.png": (
        "Worst mistakes",
        "The wrong predictions that the network was most certain of.",
    ),
    "neighbours.png": (
        "Neighbours",
        "Evaluated images, each with the nearest ones: a green frame if of the same class, a red "
        "one otherwise.",
    ),
    "corruptions.png": ("Corrupted images", "An image under every corruption."),
}
# Larger pictures are compressed: with loss, but a page of many megabytes is slow on a phone.
_LARGE_PNG = 60_000
_MOST_BYTES = 4_000_000


@dataclasses.dataclass(frozen=True)
class Picture:
    """A figure or a picture of a page.

    Attributes:
        title: its title.
        caption: what it shows.
        file: path of the file, in the run directory.
        uri: its data; empty if it cannot be shown.
        problem: why it cannot be shown.
        is_figure: whether it is a drawing on white, and not of images.
        width: in pixels; 0 if unknown.
        height: in pixels; 0 if unknown.
    """

    title: str
    caption: str
    file: str
    uri: str = ""
    problem: str = ""
    is_figure: bool = False
    width: int = 0
    height: int = 0


def of_evaluation(run: run_files.RunFiles) -> list[Picture]:
    """Returns the figures and then the pictures of the evaluation of a run."""
    return [*_in_order(run, run.figures), *_in_order(run, run.pictures)]


def _in_order(run: run_files.RunFiles, contents: Mapping[str, bytes]) -> Iterator[Picture]:
    names = [name for name in _TITLES if name in contents]
    names += [name for name in contents if name not in _TITLES]
    for name in names:
        stem = name.rpartition(".")[0].replace("_", " ")
        title, caption = _TITLES.get(name, (stem[:1].upper() + stem[1:], ""))
        path = f"evaluation/{run.evaluated_step}/{name}"
        of_content = of_svg if name.endswith(".svg") else of_png
        yield of_content(contents[name], title, caption, path)


def of_svg(content: bytes, title: str, caption: str, path: str) -> Picture:
    """Returns a figure.

    As an image, the scripts that a file might have do not run, and its identifiers are its own.
    """
    found = Picture(title, caption, path, is_figure=True)
    if not content.rstrip().endswith(b"</svg>"):
        return dataclasses.replace(found, problem="the file is damaged")
    return _with_data(found, "image/svg+xml", content)


def of_png(content: bytes, title: str, caption: str, path: str) -> Picture:
    """Returns a picture; a large one is compressed to WebP."""
    found = Picture(title, caption, path)
    kind, data = "image/png", content
    try:
        with Image.open(io.BytesIO(content)) as image:
            found = dataclasses.replace(found, width=image.width, height=image.height)
            if len(content) > _LARGE_PNG:
                compressed = io.BytesIO()
                image.convert("RGB").save(compressed, "WEBP", quality=80, method=4)
                if len(compressed.getvalue()) < len(content):
                    kind, data = "image/webp", compressed.getvalue()
            else:
                image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return dataclasses.replace(found, problem="the file is damaged")
    return _with_data(found, kind, data)


def _with_data(picture: Picture, kind: str, data: bytes) -> Picture:
    if len(data) > _MOST_BYTES:
        problem = f"the file has {len(data) / 1e6:.0f} MB, too many for this page"
        return dataclasses.replace(picture, problem=problem)
    encoded = base64.b64encode(data).decode()
    return dataclasses.replace(picture, uri=f"data:{kind};base64,{encoded}")
