"""What a command does, and with which run."""

from __future__ import annotations

import dataclasses

from simclr_tf.config.metadata import Section

MODES = (
    *("train", "eval", "train_then_eval", "export", "convert", "check_data", "show_views"),
    *("compare", "replay", "transfer", "embed", "search", "audit", "report", "runs", "study"),
    "doctor",
)
TRAIN_MODES = ("pretrain", "finetune")
PRESETS = ("auto", "500_cpu", "5000_cpu", "50000_cpu", "500_gpu", "5000_gpu", "50000_gpu")

_WHAT = Section("What to do")


@dataclasses.dataclass(frozen=True)
class TaskSettings:
    """What a command does, and with which run."""

    mode: str = _WHAT.setting(
        "train",
        "train_then_eval ends with an evaluation and a SavedModel. eval evaluates the run in "
        "--model_dir. pretrain is short for train. finetune is short for train_then_eval with "
        "--train_mode=finetune, without the baselines. "
        "check_data reads every image and lists problems. show_views writes a picture of every "
        "image operation, applied to your images. convert turns weights of google-research/simclr "
        "(--checkpoint) into a run directory (--model_dir). export writes a SavedModel of the run "
        "in --model_dir, or of --checkpoint. compare tests which of --runs is better. replay runs "
        "the step again at which the training in --model_dir met a loss or a weight that is not "
        "finite, and lists the outputs of all layers. transfer measures how well the encoder of "
        "--checkpoint works on the other data sets of --transfer_to. embed writes the features of "
        "every image by the weights of --checkpoint to --embeddings. search finds the images there "
        "that are nearest to --query. audit finds near-duplicates, outliers and doubtful labels "
        "among them. report writes report.html of the run in --model_dir again, or a page with "
        "--runs side by side. runs lists the runs below the folder --under. study "
        "trains the cells of --study and tests the orders that it expects. doctor checks this "
        "machine and the installation, measures the speed of a training step, and says what to do "
        "about each problem.",
        choices=MODES,
        resume="freely",
    )
    train_mode: str = _WHAT.setting(
        "pretrain",
        "pretrain learns a representation; finetune learns a classifier from labels, starting "
        "from --checkpoint or from scratch. finetune has its own defaults of --optimizer, "
        "--learning_rate, --warmup_epochs, --weight_decay and --train_epochs.",
        choices=TRAIN_MODES,
        resume="never",
    )
    preset: str = _WHAT.setting(
        "none",
        "Settings of pretraining for images of your own: image size, network, batch size, "
        "augmentation, optimizer and length. auto counts the training images, looks at their size "
        "and for a GPU or TPU, picks the nearest of the others, and shows it as flags; a run that "
        "is resumed keeps what was picked. Other flags override those of the preset.",
        choices=("none", *PRESETS),
        only_with=("mode", ("train", "train_then_eval")),
        resume="freely",
        stored=False,
    )
    model_dir: str | None = _WHAT.setting(
        None,
        "Run directory: checkpoints, metrics, result.json, saved_model/. Running the same command "
        "again resumes from the last checkpoint in it.",
        is_path=True,
        resume="freely",
    )
    resume_with_changes: bool = _WHAT.setting(
        False,
        "Resumes the run in --model_dir although settings that change its outcome differ from the "
        "stored ones; both values are then recorded in flags_history.jsonl. Without it, such a "
        "command is refused. What the checkpoints do not fit, such as another network, optimizer "
        "or seed, is always refused.",
        only_with=("mode", ("train", "train_then_eval")),
        resume="freely",
        stored=False,
    )
    checkpoint: str | None = _WHAT.setting(
        None,
        "Weights to start from: the --model_dir of another run, or one checkpoint in it, such as "
        "RUN/ckpt-240 or, if it was trained with --eval_epochs, RUN/best; or weights of "
        "google-research/simclr, which are recognised by their content: a SavedModel, a checkpoint "
        "of its TF2 or TF1 code, or a folder with one of them. The network's architecture is read "
        "from the weights. In eval: the weights to evaluate if --model_dir has none, on the data "
        "of their run unless --dataset or --data_dir is given. In embed: the weights to embed "
        "with, on the data of their run in the same way. audit with --checkpoint embeds first. In "
        "search: the weights that --embeddings were made with, if they were moved.",
        resume="freely",
        is_path=True,
    )
    runs: str | None = _WHAT.setting(
        None,
        "Run directories to compare, comma-separated. Each is compared with the first, on the "
        "images that --mode=eval evaluated. report writes its page to --model_dir, or to the "
        "current directory.",
        only_with=("mode", ("compare", "report")),
        resume="freely",
    )
    format: str = _WHAT.setting(
        "serving",
        "Format that export writes. serving: a SavedModel for TensorFlow Serving, the same as at "
        "the end of training. official: a SavedModel that is called like those of "
        "google-research/simclr, with the same outputs and variable names, for code that was "
        "written for those. tflite: a file for TensorFlow Lite, for phones and small devices. "
        "onnx: a file for ONNX Runtime, by tf2onnx, the extra [onnx].",
        choices=("serving", "official", "tflite", "onnx"),
        only_with=("mode", ("export",)),
        resume="freely",
    )
    seed: int = _WHAT.setting(
        0,
        "Random seed of the order of the data, of the augmentations and of the initial weights.",
        at_least=0,
        at_most=2**32 - 1,
        resume="never",
    )
