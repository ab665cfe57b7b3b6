"""Studies: experiments that a file describes."""

from __future__ import annotations

import dataclasses

from simclr_tf.config.metadata import Section

_ONLY = ("mode", ("study",))
_STUDIES = Section("Studies")


@dataclasses.dataclass(frozen=True)
class StudySettings:
    """Which study is run, and where."""

    study: str | None = _STUDIES.setting(
        None,
        "Name of a study in flags/studies/, or the path of such a file (NAME.toml): its cells are "
        "trained and evaluated, each in a run directory of its own in MODEL_DIR/cells (MODEL_DIR: "
        "runs/studies unless given), and its expected orders are tested. Cells that are done, also "
        "for another study, are not repeated. all: every study. list: prints the studies. Other "
        "flags, such as --train_epochs or --dataset, replace those of the study.",
        only_with=_ONLY,
        resume="freely",
        stored=False,
    )
    dry_run: bool = _STUDIES.setting(
        False,
        "Prints the cells of the study, their commands and the time that they are expected to "
        "take, and trains nothing.",
        only_with=_ONLY,
        resume="freely",
        stored=False,
    )
    study_seeds: int = _STUDIES.setting(
        0,
        "Number of seeds that each cell is trained with; 0: those of the study. More seeds than "
        "the study has are counted on from its last one.",
        at_least=0,
        at_most=1000,
        reason="it counts seeds",
        only_with=_ONLY,
        resume="freely",
        stored=False,
    )
    study_results: str | None = _STUDIES.setting(
        None,
        "Folder for the page, the figure and the results of a study; by default MODEL_DIR/NAME.",
        only_with=_ONLY,
        is_path=True,
        resume="freely",
        stored=False,
    )
    launcher: str = _STUDIES.setting(
        "local",
        "Where cells are trained. local: in processes on this machine. slurm: as jobs of a cluster "
        "with Slurm, by the package submitit; MODEL_DIR and the data must be on a file system that "
        "all machines see.",
        choices=("local", "slurm"),
        only_with=_ONLY,
        resume="freely",
        stored=False,
    )
    jobs: int = _STUDIES.setting(
        1,
        "Number of cells that are trained at a time. With local, the processors are divided among "
        "them; two jobs on two processors are faster than one job on both. 0: trains nothing, and "
        "writes the results of the cells that are done.",
        at_least=0,
        at_most=1000,
        reason="it counts processes",
        only_with=_ONLY,
        resume="freely",
        stored=False,
    )
    slurm_parameters: str = _STUDIES.setting(
        "",
        "Parameters of submitit for the jobs, as NAME=VALUE, comma-separated, such as "
        "slurm_partition=gpu,gpus_per_node=1,cpus_per_task=8,mem_gb=32,timeout_min=600. A job may "
        "take 12 hours unless timeout_min is given.",
        only_with=("launcher", ("slurm",)),
        resume="freely",
        stored=False,
    )
