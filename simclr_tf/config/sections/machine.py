"""The devices, and the arithmetic on them."""

from __future__ import annotations

import dataclasses

from simclr_tf.config.metadata import Section

_RESNET = ("encoder", ("resnet",))

_MACHINE = Section("Machine")


@dataclasses.dataclass(frozen=True)
class MachineSettings:
    """The devices, and the arithmetic on them."""

    use_tpu: bool = _MACHINE.setting(
        False,
        "Trains on a TPU; see docs/tpu.md. It needs TensorFlow's build for TPUs, and with "
        "tensorflow-tpu 2.20 also libtpu==0.0.14: with the libtpu that pip chooses, the process "
        "aborts. Otherwise all GPUs are used, or the CPU.",
        resume="freely",
    )
    tpu_name: str | None = _MACHINE.setting(
        None,
        "Name or address of the TPU. By default that of this machine (Colab, TPU VM).",
        resume="freely",
    )
    tpu_zone: str | None = _MACHINE.setting(None, "Zone of a Cloud TPU.", resume="freely")
    gcp_project: str | None = _MACHINE.setting(None, "Project of a Cloud TPU.", resume="freely")
    master: str | None = _MACHINE.setting(
        None, "Address of the TPU, if --tpu_name is not given.", resume="freely"
    )
    num_virtual_cpus: int = _MACHINE.setting(
        1,
        "Splits the CPU into this many replicas, to try distributed training on any machine.",
        at_least=1,
        reason="1 means that the CPU is not split",
        resume="freely",
        at_most=16,
        limit_reason="building more takes minutes",
    )
    preemption_signal: str = _MACHINE.setting(
        "none",
        "A signal that means the same as SIGTERM, for schedulers that announce the end of a job by "
        "another one, such as SLURM with --signal=USR1@120. Training then saves a checkpoint after "
        "the steps in progress, which take about a second, and exits with code 143; the same "
        "command resumes. A second signal, or one outside of training, ends the program at once.",
        choices=("none", "USR1", "USR2"),
        resume="freely",
    )
    mixed_precision: str = _MACHINE.setting(
        "none",
        "Arithmetic of the layers; losses, normalisation and statistics stay in float32. auto is "
        "bfloat16 where all devices multiply in it (processors with AVX512-BF16 or AMX, ARM "
        "processors with BF16, TPUs, NVIDIA GPUs of compute capability 8.0 or higher), and "
        "otherwise none, which is float32. Where a processor emulates bfloat16, it is many times "
        "slower. float16 is for older NVIDIA GPUs (7.0 and 7.5), and scales the loss. A run that "
        "was started with auto resumes on any machine, in the arithmetic of that one.",
        choices=("none", "auto", "bfloat16", "float16"),
    )
    jit_compile: bool = _MACHINE.setting(
        False,
        "Compiles the training step with XLA. One device only: compiled by XLA, TensorFlow's "
        "replicas cannot read the weights on their own devices. On a TPU it always is compiled.",
        resume="freely",
    )
    deterministic: bool = _MACHINE.setting(
        False,
        "Makes TensorFlow use only operations whose results are the same in every bit each time, "
        "or end with an error where it has none. On a GPU this is slower, and needed to get the "
        "same weights from the same flags again. On a CPU and a TPU they are the same anyway.",
        resume="freely",
    )
    recompute: bool = _MACHINE.setting(
        False,
        "Keeps only the inputs and outputs of each block group of the ResNet, and computes the "
        "rest again in the backward pass: less memory for about 4/3 of the time, with the same "
        "result. --accum_chunks saves memory too, but changes the statistics of batch norm.",
        only_with=_RESNET,
        resume="freely",
    )
