"""Sends image files to a model server, and writes their features to a file.

    python examples/serving_client.py photos/ --output=features.npz
    python examples/serving_client.py photos/ --output=features.npz --api=rest
    python examples/serving_client.py a.jpg b.png --server=gpu1:8500 --model=birds --output=x.npy

The server is TensorFlow Serving with a SavedModel of this project; docs/serving.md says how to
start it. To use this elsewhere, copy this file and serving_api.py. They need NumPy; gRPC also needs
the package tensorflow-serving-api, whose import takes seconds, because it imports TensorFlow.

A .npy file has one row for each image, in their order; images that cannot be used have zeros. A
.npz file also has the names of the images, all other outputs of the model, and "valid", which is
false for images that cannot be used.

The exit status is 0 if every image was used, 1 if some cannot be used (they are listed with the
reason), and 2 if there are no features, because of what is printed.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import functools
import pathlib
import sys
import time

import numpy as np
import serving_api

Client = serving_api.GrpcClient | serving_api.RestClient
_STRICT = "serving_bytes_strict"
_QUIET_SECONDS, _PROGRESS_SECONDS = 5.0, 2.0  # Without progress; between two lines of it.
_MOST_LISTED = 20  # Images that cannot be used.
_REMEDIES = {
    "UNAVAILABLE": "Start the server, or name another one by --server; usually, gRPC has port "
    "8500 and REST port 8501.",
    "DEADLINE_EXCEEDED": "Send fewer images in a request by --batch_size, or wait longer by "
    "--timeout.",
    "RESOURCE_EXHAUSTED": "Send fewer images in a request by --batch_size, or try again later.",
    "NOT_FOUND": "Give the name of a model that the server has by --model.",
    "NO_FEATURES": "Write to a .npz file, which has all outputs.",
}
_PORTS = {"grpc": 8500, "rest": 8501}


def remedy(error: serving_api.RequestError, client: Client, signature: str) -> str:
    """Returns what to do about a request that failed in every attempt."""
    if error.code in _REMEDIES:
        return _REMEDIES[error.code]
    if "signature" in error.detail.lower() and "not found" in error.detail:
        try:
            return f"Choose one of {', '.join(client.signatures())} by --signature."
        except serving_api.RequestError as second:
            return f"Choose another one by --signature. (They cannot be listed: {second}.)"
    if signature == _STRICT:
        return "--signature=serving_bytes marks bad images, and answers the others."
    return f"Does {signature!r} take the bytes of images, under the name {serving_api.INPUT}?"


def compute(
    client: Client, paths: Sequence[pathlib.Path], arguments: argparse.Namespace
) -> serving_api.Outputs:
    """Returns the outputs for files, in their order, and shows progress if it takes long."""
    answers: list[serving_api.Outputs] = []
    begun = shown = time.monotonic()
    for start in range(0, len(paths), arguments.batch_size):
        batch = paths[start : start + arguments.batch_size]
        files = [path.read_bytes() for path in batch]
        call = functools.partial(client.predict, arguments.signature, files)
        try:
            answers.append(serving_api.with_retries(call, arguments.retries))
        except serving_api.RequestError as error:
            images = f"{error.detail} - in the request with {batch[0]} to {batch[-1]}"
            raise serving_api.RequestError(error.code, images) from error
        if arguments.output.suffix == ".npy" and "features" not in answers[0]:
            raise serving_api.RequestError("NO_FEATURES", f"there are {', '.join(answers[0])}")
        now, done = time.monotonic(), start + len(files)
        if now - begun > _QUIET_SECONDS and now - shown > _PROGRESS_SECONDS:
            shown, left = now, (len(paths) - done) * (now - begun) / done
            print(f"{done:,} of {len(paths):,} images, {left:,.0f} s left", file=sys.stderr)
    outputs = {name: np.concatenate([one[name] for one in answers]) for name in answers[0]}
    return {"valid": np.ones(len(paths), np.bool_), **outputs}  # Strict signatures have no "valid".


def list_bad(client: Client, bad: Sequence[pathlib.Path], retries: int) -> None:
    """Prints the images that cannot be used, and why: the strict signature says so."""
    for path in bad[:_MOST_LISTED]:
        call = functools.partial(client.predict, _STRICT, [path.read_bytes()])
        try:
            serving_api.with_retries(call, retries)
            reason = "the server does not say why"
        except serving_api.RequestError as error:
            is_told = error.code == "INVALID_ARGUMENT"
            reason = error.detail if is_told else f"the server does not say why ({error})"
        print(f"cannot be used: {path}: {reason}", file=sys.stderr)
    if len(bad) > _MOST_LISTED:
        print(f"cannot be used: {len(bad) - _MOST_LISTED:,} more", file=sys.stderr)


def image_files(names: Sequence[pathlib.Path]) -> list[pathlib.Path]:
    """Returns files, and instead of folders the files below them that are not hidden."""
    found = []
    for name in names:
        below = [path for path in sorted(name.rglob("*")) if path.is_file()]
        hidden = [any(one[0] == "." for one in path.relative_to(name).parts) for path in below]
        found += [path for path, is_hidden in zip(below, hidden) if not is_hidden]
        if not name.is_dir():
            found.append(name)
    return found


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Returns the arguments; "paths" has the image files."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("images", nargs="+", type=pathlib.Path, help="image files, and folders of nothing else")
    add("--output", required=True, type=pathlib.Path, help="the .npy or .npz file to write")
    add("--api", choices=("grpc", "rest"), default="grpc", help="default: %(default)s")
    add("--server", help="HOST:PORT; default: localhost:8500, or localhost:8501 for REST")
    add("--model", default="simclr", help="name of the model on the server; default: %(default)s")
    add(
        "--signature",
        default="serving_bytes",
        help=f"default: %(default)s, which marks bad images; {_STRICT} refuses a request with one",
    )
    add("--batch_size", type=int, default=16, help="images in a request; default: %(default)s")
    add("--timeout", type=float, default=30.0, help="seconds for a request; default: %(default)g")
    add(
        "--retries",
        type=int,
        default=4,
        help="attempts after the first one, if the server cannot be reached, is busy or is slow; "
        f"before each, a pause of {serving_api.FIRST_PAUSE:g} s, then twice as long, up to "
        f"{serving_api.LONGEST_PAUSE:g} s; default: %(default)s",
    )
    arguments = parser.parse_args(argv)
    arguments.server = arguments.server or f"localhost:{_PORTS[arguments.api]}"
    if arguments.output.suffix not in (".npy", ".npz"):
        parser.error(f"--output={arguments.output} must end in .npy or .npz")
    if not arguments.output.parent.is_dir():
        parser.error(f"--output={arguments.output} is in a folder that does not exist")
    if arguments.batch_size < 1 or arguments.retries < 0 or arguments.timeout <= 0:
        parser.error("--batch_size and --timeout must be positive, and --retries not negative")
    arguments.paths = image_files(arguments.images)
    missing = [str(path) for path in arguments.paths if not path.is_file()]
    if missing or not arguments.paths:
        parser.error(f"there is no file {missing[0]}" if missing else "the folders have no files")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the features, and returns the exit status."""
    arguments = parse(argv)
    kind = serving_api.GrpcClient if arguments.api == "grpc" else serving_api.RestClient
    try:
        client: Client = kind(arguments.server, arguments.model, arguments.timeout)
        outputs = compute(client, arguments.paths, arguments)
    except serving_api.RequestError as error:
        advice = remedy(error, client, arguments.signature)
        print(f"error: {arguments.server}, model {arguments.model!r}: {error}", file=sys.stderr)
        print(advice, file=sys.stderr)
        return 2
    except ImportError as error:
        print(f"error: {error}; pip install tensorflow-serving-api, or --api=rest", file=sys.stderr)
        return 2
    bad = [path for path, valid in zip(arguments.paths, outputs["valid"]) if not valid]
    if arguments.output.suffix == ".npy":
        outputs = {"features": outputs["features"]}
        np.save(arguments.output, outputs["features"])
    else:
        np.savez(arguments.output, names=np.array([*map(str, arguments.paths)]), **outputs)
    list_bad(client, bad, arguments.retries)
    shapes = [f"{name} {' x '.join(map(str, values.shape))}" for name, values in outputs.items()]
    print(f"{arguments.output}: {', '.join(shapes)}; {len(bad)} of the images cannot be used")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
