"""Finds NVIDIA GPUs without TensorFlow, and the reason why TensorFlow does not see them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import contextlib
import ctypes
import dataclasses
import os
import pathlib
import re

from simclr_tf import text
from simclr_tf.doctor import finding

_NVIDIA = "0x10de"
_DISPLAY_CLASS = "0x03"  # Graphics cards, and accelerators without a display.
DRIVER = "libcuda.so.1"
# Messages of TensorFlow's log. TensorRT is not needed, and others belong to the driver.
_MISSING = re.compile(
    r"Could not load dynamic library '(?!libnvinfer|libcuda\.so|libnvidia-)([^']+)'"
)
_DRIVER_FAILED = re.compile(r"failed call to cuInit: (.+)")
_LITTLE_MEMORY = 2 * 2**30


@dataclasses.dataclass(frozen=True)
class Hardware:
    """The NVIDIA GPUs of the machine.

    Attributes:
        files: device files that the driver made, such as /dev/nvidia0.
        addresses: addresses on the PCI bus.
        can_open: whether this user may open all the files.
    """

    files: list[str]
    addresses: list[str]
    can_open: bool = True


@dataclasses.dataclass(frozen=True)
class Seen:
    """What TensorFlow says of GPUs.

    Attributes:
        devices: the models of those that it sees.
        cuda_build: whether it was built with CUDA.
        version: the version of TensorFlow.
        log: what it wrote to its log.
        unmet: name -> what is wrong, of the packages of tensorflow[and-cuda].
        free: bytes of the GPU that has the least free memory; None if unknown.
    """

    devices: Sequence[str]
    cuda_build: bool
    version: str
    log: str = ""
    unmet: Mapping[str, str] = dataclasses.field(default_factory=dict)
    free: int | None = None


def device_files(root: pathlib.Path = pathlib.Path("/")) -> list[str]:
    """Returns the device files of NVIDIA GPUs, such as /dev/nvidia0.

    Args:
        root: the folder that contains dev/.
    """
    names = (path.name for path in (root / "dev").glob("nvidia*"))
    return sorted(f"/dev/{name}" for name in names if re.fullmatch(r"nvidia\d+", name))


def find(root: pathlib.Path = pathlib.Path("/")) -> Hardware:
    """Finds the NVIDIA GPUs of the machine.

    Args:
        root: the folder that contains dev/ and sys/.
    """
    files = device_files(root)
    addresses = []
    for device in sorted((root / "sys/bus/pci/devices").glob("*")):
        with contextlib.suppress(OSError):
            vendor, kind = ((device / name).read_text().strip() for name in ("vendor", "class"))
            if vendor == _NVIDIA and kind.startswith(_DISPLAY_CLASS):
                addresses.append(device.name)
    readable = all(os.access(root / name.lstrip("/"), os.R_OK | os.W_OK) for name in files)
    return Hardware(files, addresses, readable)


def loads(library: str) -> bool:
    """Returns whether a shared library can be loaded."""
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def check(
    hardware: Hardware,
    seen: Seen | None,
    environment: Mapping[str, str],
    can_load: Callable[[str], bool] = loads,
) -> finding.Finding:
    """Checks whether TensorFlow sees the GPUs of the machine.

    Args:
        hardware: the GPUs of the machine.
        seen: what TensorFlow sees; None if it failed before it could list devices.
        environment: the environment variables.
        can_load: returns whether a shared library can be loaded.
    """
    if seen is not None and seen.devices:
        return _check_memory(seen)
    names = hardware.files or [f"PCI device {one}" for one in hardware.addresses]
    if not names:
        return finding.ok("GPU", "no NVIDIA GPU in this machine; training uses the CPU")
    there = f"{text.shortened(names)} {'is' if len(names) == 1 else 'are'} there"
    if seen is None:
        return finding.Finding(
            "GPU",
            finding.WARNING,
            f"{there}; TensorFlow failed before it could list them",
            "Repair TensorFlow first, and run this again.",
        )
    reason, remedy = _why_unseen(hardware, seen, environment, can_load)
    value = f"{there}, but TensorFlow sees no GPU, because {reason}"
    return finding.Finding("GPU", finding.PROBLEM, value, remedy)


def _check_memory(seen: Seen) -> finding.Finding:
    value = f"TensorFlow uses {text.count(len(seen.devices), 'GPU')}: "
    value += text.shortened(list(dict.fromkeys(seen.devices)))
    if seen.free is None:
        return finding.ok("GPU", value)
    value += f", with {text.gib(seen.free)} free"
    if seen.free >= _LITTLE_MEMORY:
        return finding.ok("GPU", value)
    return finding.Finding(
        "GPU",
        finding.WARNING,
        value,
        "nvidia-smi lists the processes that use the memory; end those, or choose another GPU with "
        "CUDA_VISIBLE_DEVICES.",
    )


def _why_unseen(
    hardware: Hardware,
    seen: Seen,
    environment: Mapping[str, str],
    can_load: Callable[[str], bool],
) -> tuple[str, str]:
    """Returns the likely reason why TensorFlow sees no GPU, and the remedy."""
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.strip() in ("", "-1", "NoDevFiles"):
        return (
            f"CUDA_VISIBLE_DEVICES is {visible!r}, which hides all GPUs",
            "Run: unset CUDA_VISIBLE_DEVICES",
        )
    if not hardware.files:
        return (
            "NVIDIA's driver has not made the device files /dev/nvidia*",
            "Install NVIDIA's driver, or load it (sudo modprobe nvidia); start a container with "
            "access to the GPUs (docker run --gpus=all).",
        )
    if not hardware.can_open:
        return (
            "this user may not open the device files",
            "Add the user to the group that owns them (ls -l /dev/nvidia*), often video, or let "
            "the job request a GPU.",
        )
    if not can_load(DRIVER):
        return (
            f"the library of NVIDIA's driver, {DRIVER}, cannot be loaded",
            "Install NVIDIA's driver, or add the folder of the library to LD_LIBRARY_PATH; start a "
            "container with docker run --gpus=all.",
        )
    return _why_unused(seen, visible)


def _why_unused(seen: Seen, visible: str | None) -> tuple[str, str]:
    """Returns why TensorFlow does not use GPUs whose driver can be loaded, and the remedy."""
    install = f'pip install "tensorflow[and-cuda]=={seen.version}"'
    if not seen.cuda_build:
        return (
            "it was built without CUDA",
            f"Run: pip uninstall -y tensorflow-cpu && {install} (on Windows, inside WSL 2).",
        )
    failed = _DRIVER_FAILED.search(seen.log)
    if failed:
        hint = ""
        if visible is not None:
            hint = f" CUDA_VISIBLE_DEVICES is {visible!r}; compare it with the list of nvidia-smi."
        return (
            f"NVIDIA's driver does not start ({failed[1].strip()})",
            "If nvidia-smi fails, too, update the driver or restart the machine." + hint,
        )
    missing = list(dict.fromkeys(_MISSING.findall(seen.log)))
    if missing:
        return f"it cannot load {text.shortened(missing)}", f"Run: {install}"
    if seen.unmet:
        wrong = [f"{name} ({problem})" for name, problem in seen.unmet.items()]
        return (
            f"libraries of CUDA are not those it needs: {text.shortened(wrong)}",
            f"Run: {install}",
        )
    return (
        "of something that this program does not know",
        "Run: TF_CPP_MIN_LOG_LEVEL=0 python -c 'import tensorflow as tf; "
        'tf.config.list_physical_devices("GPU")\' and read what it prints.',
    )
