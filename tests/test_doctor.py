"""What --mode=doctor says of packages and GPUs, which are made up here."""

import dataclasses
import os
import pathlib
from typing import Any

from packaging import requirements
import pytest

from simclr_tf.doctor import gpus, packages

GIB = 2**30
ROOT = pathlib.Path(__file__).parents[1]
ONE_GPU = gpus.Hardware(["/dev/nvidia0"], ["0000:01:00.0"])
NONE_SEEN = gpus.Seen([], cuda_build=True, version="2.15.1")


def write(root, files):
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)


def by_name(found):
    return {one.what: one for one in found}


def check(lines, versions, builds=None):
    """Returns the findings about packages of these versions by name."""
    required = list(map(requirements.Requirement, lines))
    builds = {"tensorflow": versions["tensorflow"]} if builds is None else builds
    return by_name(packages.check(required, builds, versions.get))


@pytest.mark.parametrize(
    ("version", "state"),
    [("3.10.9", "problem"), ("3.11.7", "ok"), ("3.13.0", "ok"), ("3.14.1", "warning")],
)
def test_python_is_as_tested(version, state):
    found = packages.python(version, "Linux x86_64")
    assert (found.state, found.value) == (state, f"{version} on Linux x86_64")
    assert bool(found.remedy) == (state != "ok")


def test_packages_as_required_take_few_lines():
    found = check(
        ["tensorflow>=2.16", "tf-keras", "keras>=3", "numpy", "rich>=13"],
        {
            "tensorflow": "2.21.0",
            "tf-keras": "2.21.0",
            "keras": "3.12.0",
            "numpy": "2.1",
            "rich": "14",
        },
    )
    assert {one.state for one in found.values()} == {"ok"}
    assert {name: one.value for name, one in found.items()} == {
        "TensorFlow": "2.21.0",
        "Keras (tf-keras)": "2.21.0",
        "other packages": "3 packages as required",
    }


def test_a_missing_package_and_one_of_another_version_are_problems():
    found = check(
        [
            "tensorflow==2.15.1",
            "tensorflow-metadata<1.17",
            "psutil",
            "absent==1; python_version < '3'",
        ],
        {"tensorflow": "2.13.0", "tensorflow-metadata": "1.17.2"},
    )
    wrong = {one.what: (one.value, one.remedy) for one in found.values() if one.state == "problem"}
    assert wrong == {
        "TensorFlow": ("2.13.0, ==2.15.1 is required", 'Run: pip install "tensorflow==2.15.1"'),
        "tensorflow-metadata": (
            "1.17.2, <1.17 is required",
            'Run: pip install "tensorflow-metadata<1.17"',
        ),
        "psutil": ("not installed, any version is required", 'Run: pip install "psutil"'),
    }
    assert found["other packages"].value == "0 packages as required"


def test_keras_3_beside_a_tensorflow_that_needs_keras_2_is_a_problem():
    versions = {"tensorflow": "2.15.1", "keras": "3.4.0"}
    found = check(["tensorflow==2.15.1", "keras<2.16,>=2.15"], versions)
    assert found["Keras"].state == "problem"
    assert found["Keras"].value == "3.4.0, <2.16,>=2.15 is required"


def test_another_package_with_tensorflow_is_named():
    found = check(["tensorflow"], {"tensorflow": "2.15.1"}, {"tensorflow-cpu": "2.15.1"})
    assert found["TensorFlow"].value == "2.15.1 (tensorflow-cpu)"


def test_two_packages_with_tensorflow_are_a_problem():
    builds = {"tensorflow": "2.15.1", "tensorflow-cpu": "2.15.1"}
    found = check(["tensorflow"], {"tensorflow": "2.15.1"}, builds)["TensorFlow's packages"]
    assert found.state == "problem"
    assert "pip uninstall -y tensorflow tensorflow-cpu" in found.remedy


@pytest.mark.parametrize(("keras", "fits"), [("2.20.1", False), ("2.21.0", True)])
def test_tf_keras_is_of_the_version_of_tensorflow(keras, fits):
    found = check(["tensorflow", "tf-keras"], {"tensorflow": "2.21.0", "tf-keras": keras})
    assert ("Keras for TensorFlow" in found) == (not fits)
    if not fits:
        assert found["Keras for TensorFlow"].remedy == 'Run: pip install "tf-keras==2.21.*"'


def test_the_requirements_are_read_from_the_file_or_from_the_installed_package(tmp_path):
    read = {str(one) for one in packages.declared(ROOT)}
    assert {
        "psutil",
        "numpy",
        "packaging>=22",
        'tf-keras<2.22,>=2.16; python_version == "3.12"',
    } <= read
    write(tmp_path, {"requirements.txt": "# Of users.\nnumpy  # All of it.\n\nrich>=13\n"})
    assert [str(one) for one in packages.declared(tmp_path)] == ["numpy", "rich>=13"]
    # This package is not installed beside the tests, so another one stands for it.
    cuda = {one.name for one in packages.required_by("tensorflow", "and-cuda")}
    own = {one.name for one in packages.required_by("tensorflow")}
    assert "nvidia-cudnn-cu12" in cuda - own
    assert "numpy" in own - cuda
    assert packages.required_by("no-such-package") == []


def test_the_installed_packages_are_as_required():
    assert packages.unmet(packages.declared(ROOT)) == {}


def test_gpus_are_found_by_device_files_and_on_the_pci_bus(tmp_path):
    assert gpus.find(tmp_path) == gpus.Hardware([], [])
    write(
        tmp_path, {f"dev/{name}": "" for name in ("nvidia1", "nvidia0", "nvidiactl", "nvidia-uvm")}
    )
    for name, vendor, kind in (
        ("0000:00:02.0", "0x8086", "0x030000"),  # Of another maker.
        ("0000:01:00.0", "0x10de", "0x030200"),
        ("0000:01:00.1", "0x10de", "0x040300"),  # The sound of the card.
    ):
        folder = f"sys/bus/pci/devices/{name}"
        write(tmp_path, {f"{folder}/vendor": f"{vendor}\n", f"{folder}/class": f"{kind}\n"})
    expected = gpus.Hardware(["/dev/nvidia0", "/dev/nvidia1"], ["0000:01:00.0"])
    assert gpus.find(tmp_path) == expected


def test_a_gpu_that_this_user_may_not_open_is_recognised(tmp_path, monkeypatch):
    write(tmp_path, {"dev/nvidia0": ""})
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert not gpus.find(tmp_path).can_open


def test_no_gpu_in_the_machine_is_not_a_problem():
    found = gpus.check(gpus.Hardware([], []), NONE_SEEN, {"CUDA_VISIBLE_DEVICES": "-1"})
    assert (found.state, found.remedy) == ("ok", "")
    assert "no NVIDIA GPU" in found.value


NO_CUDNN = (
    "I dso_loader.cc:63] Could not load dynamic library 'libnvinfer.so.8.6.1'; dlerror: x\n"
    "I dso_loader.cc:63] Could not load dynamic library 'libcudnn.so.8'; dlerror: x\n"
    "W gpu_device.cc:2256] Cannot dlopen some GPU libraries.\n"
)
NO_DEVICE = (
    "E0000 cuda_platform.cc:52] failed call to cuInit: CUDA_ERROR_NO_DEVICE: no device\nI other\n"
)
CUDNN = {"nvidia-cudnn-cu12": "9.1, ==8.9.4.25 is required"}
INSTALL = 'Run: pip install "tensorflow[and-cuda]==2.15.1"'
# How TensorFlow and the hardware differ from usual, CUDA_VISIBLE_DEVICES, and what to expect of the
# reason and of the remedy.
UNSEEN: dict[str, tuple[dict[str, Any], dict[str, Any], str | None, str, str]] = {
    "hidden": ({}, {}, "-1", "is '-1', which hides", "unset CUDA_VISIBLE_DEVICES"),
    "all hidden": ({}, {}, "", "is '', which hides", "unset CUDA_VISIBLE_DEVICES"),
    "no driver": ({}, {"files": []}, None, "has not made the device files", "--gpus=all"),
    "no permission": ({}, {"can_open": False}, None, "may not open the device files", "video"),
    "no library": ({}, {}, None, "libcuda.so.1, cannot be loaded", "LD_LIBRARY_PATH"),
    "tensorflow-cpu": (
        {"cuda_build": False},
        {},
        None,
        "it was built without CUDA",
        'pip uninstall -y tensorflow-cpu && pip install "tensorflow[and-cuda]==2.15.1"',
    ),
    "driver fails": ({"log": NO_DEVICE}, {}, None, "NO_DEVICE: no device)", "If nvidia-smi fails"),
    "no such GPU": ({"log": NO_DEVICE}, {}, "7", "does not start", "VISIBLE_DEVICES is '7'"),
    "no cuDNN": ({"log": NO_CUDNN}, {}, None, "because it cannot load libcudnn.so.8", INSTALL),
    "other cuDNN": ({"unmet": CUDNN}, {}, None, "cudnn-cu12 (9.1, ==8.9.4.25 is", INSTALL),
    "unknown": ({}, {}, None, "does not know", "TF_CPP_MIN_LOG_LEVEL=0"),
}


@pytest.mark.parametrize("name", UNSEEN)
def test_the_reason_why_tensorflow_sees_no_gpu_is_found(name):
    says, has, visible, reason, remedy = UNSEEN[name]
    seen, hardware = dataclasses.replace(NONE_SEEN, **says), dataclasses.replace(ONE_GPU, **has)
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    asked: list[str] = []

    def can_load(library):
        asked.append(library)
        return name != "no library"

    found = gpus.check(hardware, seen, environment, can_load)
    assert found.state == "problem"
    there = "/dev/nvidia0" if hardware.files else "PCI device 0000:01:00.0"
    assert found.value.startswith(f"{there} is there, but TensorFlow sees no GPU, because ")
    assert reason in found.value
    assert remedy in found.remedy
    assert set(asked) <= {"libcuda.so.1"}


def test_a_library_that_does_not_exist_cannot_be_loaded():
    assert not gpus.loads("libno_such_library.so.1")


def test_without_tensorflow_the_reason_is_left_open():
    found = gpus.check(ONE_GPU, None, {})
    assert found.state == "warning"
    assert "Repair TensorFlow first" in found.remedy


def test_gpus_that_tensorflow_sees_are_listed_with_their_memory():
    seen = gpus.Seen(["NVIDIA L4", "NVIDIA L4"], cuda_build=True, version="2.15.1", free=20 * GIB)
    found = gpus.check(ONE_GPU, seen, {})
    assert (found.state, found.value) == (
        "ok",
        "TensorFlow uses 2 GPUs: NVIDIA L4, with 20.00 GiB free",
    )


def test_a_gpu_that_others_use_is_a_warning():
    seen = gpus.Seen(["NVIDIA L4"], cuda_build=True, version="2.15.1", free=GIB)
    found = gpus.check(ONE_GPU, seen, {})
    assert found.state == "warning"
    assert "nvidia-smi" in found.remedy
