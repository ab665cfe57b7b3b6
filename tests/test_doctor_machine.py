"""What --mode=doctor says of the processor, the memory and the folders, which are made up here."""

import os
import types

import pytest
import tensorflow_datasets as tfds

from simclr_tf import cgroup
from simclr_tf.doctor import finding, folders, memory, processor
from simclr_tf.runs import machine

GIB = 2**30


def write(root, files):
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)


CPUINFO = (
    "processor\t: 0\nmodel name\t: AMD EPYC 9354\nflags\t\t: fpu sse2 avx avx2 avx512f amx_bf16\n"
)


def test_the_processor_is_read_from_linux_list(tmp_path):
    assert machine.instructions(tmp_path) == frozenset()
    write(tmp_path, {"proc/cpuinfo": CPUINFO + CPUINFO.replace("AMD", "Other").replace("avx2", "")})
    assert machine.processor(tmp_path) == "AMD EPYC 9354"
    assert machine.instructions(tmp_path) == {"fpu", "sse2", "avx", "avx2", "avx512f", "amx_bf16"}
    write(tmp_path, {"proc/cpuinfo": "processor\t: 0\nFeatures\t: fp asimd bf16\n"})
    assert machine.instructions(tmp_path) == {"fp", "asimd", "bf16"}


@pytest.mark.parametrize(
    ("sets", "state", "value"),
    [
        (
            "sse2 avx avx2 avx512f avx512_bf16",
            "ok",
            "float32: AVX2, AVX-512; for bfloat16: AVX512-BF16",
        ),
        ("sse2 avx avx2 amx_bf16", "ok", "float32: AVX2; for bfloat16: AMX"),
        ("sse2 avx avx2", "ok", "for bfloat16: none"),
        ("sse2 avx", "warning", "for float32: none"),
        ("sse2", "problem", "it has no AVX"),
        ("asimd bf16", "ok", "float32: NEON; for bfloat16: BF16"),
        ("", "ok", "its instructions are unknown"),
    ],
)
def test_the_instructions_that_make_training_fast_are_listed(sets, state, value):
    found = processor.instructions("EPYC", set(sets.split()))
    assert (found.state, bool(found.remedy)) == (state, state != "ok")
    assert value in found.value


def test_onednn_that_was_switched_off_is_a_warning():
    for on in ({}, {machine.ONEDNN: "1"}):
        assert processor.onednn(on) == finding.ok("oneDNN", "on")
    found = processor.onednn({machine.ONEDNN: "0"})
    assert (found.state, found.value) == ("warning", "off (TF_ENABLE_ONEDNN_OPTS=0)")
    assert found.remedy.endswith("run: unset TF_ENABLE_ONEDNN_OPTS")


@pytest.mark.parametrize(
    ("groups", "files", "quota"),
    [
        ("0::/job", {"cgroup/job/cpu.max": "150000 100000"}, 1.5),
        ("0::/job", {"cgroup/job/cpu.max": "max 100000", "cgroup/cpu.max": "400000 100000"}, 4),
        (
            "3:cpu,cpuacct:/job",
            {
                "cgroup/cpu/job/cpu.cfs_quota_us": "50000",
                "cgroup/cpu/job/cpu.cfs_period_us": "100000",
                "cgroup/cpu/cpu.cfs_quota_us": "-1",
                "cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            0.5,
        ),
        ("0::/", {"cgroup/cpu.max": "max 100000"}, None),
        ("0::/", {}, None),
    ],
)
def test_the_cores_of_a_container_are_read(tmp_path, groups, files, quota):
    write(tmp_path, {"proc/self/cgroup": groups, **{f"sys/fs/{one}": files[one] for one in files}})
    assert cgroup.cpu_quota(tmp_path) == quota


def test_a_quota_below_the_cores_is_a_warning():
    assert processor.cores(8, 16, None) == finding.ok("cores", "8 usable of 16")
    assert processor.cores(8, 16, 8.0).state == "ok"
    found = processor.cores(8, 16, 2.5)
    assert found.state == "warning"
    assert found.value == "8 usable of 16, but the container or job may only use the time of 2.5"
    assert "taskset -c 0-1 python" in found.remedy
    assert "taskset -c 0-0 python" in processor.cores(8, 16, 0.5).remedy


def test_other_programs_on_the_processor_are_a_warning():
    assert processor.load(0.9, 2).state == "ok"
    assert processor.load(1.0, 2).state == "warning"


@pytest.mark.parametrize(("free", "state"), [(2.0, "ok"), (1.9, "warning"), (0.9, "problem")])
def test_little_memory_is_a_warning_and_too_little_a_problem(free, state):
    found = memory.memory(int(free * GIB), 8 * GIB, None)
    assert (found.state, found.value) == (state, f"{free:.2f} GiB free of 8.00 GiB")


def test_the_limit_of_a_container_is_named():
    assert "limit of the container" in memory.memory(4 * GIB, 8 * GIB, 8 * GIB).value
    assert "limit" not in memory.memory(4 * GIB, 8 * GIB, 2**63 - 4096).value


def test_shared_memory_of_a_container_is_little(tmp_path, monkeypatch):
    assert memory.shared(tmp_path / "absent").state == "warning"
    usage = {"total": 64 * 2**20, "used": 0, "free": 64 * 2**20}
    monkeypatch.setattr(memory.shutil, "disk_usage", lambda path: types.SimpleNamespace(**usage))
    found = memory.shared(tmp_path)
    assert (found.state, found.value) == (
        "warning",
        f"0.06 GiB free of 0.06 GiB in {tmp_path}",
    )
    assert "--shm-size" in found.remedy
    usage["free"] = GIB
    assert memory.shared(tmp_path).state == "ok"


def all_writable(folder):
    return True


@pytest.mark.parametrize(("free", "state"), [(2.0, "ok"), (1.9, "warning"), (0.09, "problem")])
def test_a_disk_that_is_almost_full_is_a_problem(tmp_path, free, state):
    path = str(tmp_path / "runs" / "new")
    found = folders.model_dir(path, writable=all_writable, free=lambda one: int(free * GIB))
    assert (found.what, found.state) == ("run directory", state)
    assert found.value == f"{path}, does not exist yet, {free:.2f} GiB free"
    assert list(tmp_path.iterdir()) == []


def test_the_nearest_folder_that_exists_must_be_writable(tmp_path):
    (tmp_path / "runs").mkdir()
    asked: list[str] = []

    def refuse(folder):
        asked.append(folder)
        return False

    found = folders.model_dir(str(tmp_path / "runs" / "a" / "b"), writable=refuse)
    assert asked == [str(tmp_path / "runs")]
    assert (found.state, found.value) == (
        "problem",
        f"{tmp_path}/runs/a/b, does not exist yet, cannot be written to",
    )
    assert f"permissions of {tmp_path}/runs, or name a folder" in found.remedy
    assert "--model_dir" in found.remedy


def test_a_file_in_place_of_a_folder_is_a_problem(tmp_path):
    write(tmp_path, {"runs": ""})
    found = folders.model_dir(str(tmp_path / "runs" / "a"))
    assert (found.state, found.value) == ("problem", f"{tmp_path}/runs is a file")


def test_without_a_run_directory_the_current_one_is_checked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = folders.model_dir(None, free=lambda one: 5 * GIB)
    assert (found.what, found.value) == ("current directory", f"{tmp_path}, 5.00 GiB free")


def test_a_remote_folder_is_not_checked():
    for found in (
        folders.model_dir("gs://b/run"),
        folders.data_dir("gs://b"),
        folders.prepared("gs://b"),
    ):
        assert found.state == "ok"
        assert "remote" in found.value


def test_a_data_folder_that_cannot_be_written_to_may_have_prepared_data(tmp_path):
    def refuse(folder):
        return False

    found = folders.data_dir(str(tmp_path), writable=refuse)
    assert found.state == "problem"
    assert "--data_dir" in found.remedy
    write(tmp_path, {"digits/1.0.0/dataset_info.json": "{}"})
    found = folders.data_dir(str(tmp_path), writable=refuse)
    assert found.state == "warning"
    assert found.remedy.startswith("Only what is prepared there can be used.")


def test_prepared_and_incomplete_data_sets_are_listed(tmp_path):
    assert folders.prepared(str(tmp_path / "absent")).value == "none prepared yet"
    names = ("cifar10/3.0.2", "imagenet2012_subset/10pct/5.1.0", "downloads/x/1.0.0")
    write(tmp_path, {f"{name}/dataset_info.json": "{}" for name in names})
    write(tmp_path, {"photos/cat/a.jpg": "", "notes.txt": ""})
    complete = "cifar10/3.0.2, imagenet2012_subset/10pct/5.1.0"
    assert folders.prepared(str(tmp_path)) == finding.ok("data sets", complete)
    write(tmp_path, {"digits/incomplete.P93G5S_1.0.0/x": "", "svhn/1.0.0/part": ""})
    found = folders.prepared(str(tmp_path))
    assert found.state == "warning"
    incomplete = "digits/incomplete.P93G5S_1.0.0, svhn/1.0.0"
    assert found.value == f"{complete}; incomplete: {incomplete}"
    assert found.remedy.endswith(f"delete {tmp_path}/digits/incomplete.P93G5S_1.0.0.")


def test_the_data_folder_is_the_one_of_tensorflow_datasets():
    assert folders.default_data_dir({"TFDS_DATA_DIR": "/data/tfds"}) == "/data/tfds"
    assert folders.default_data_dir(os.environ) == tfds.core.constants.DATA_DIR
