"""Every flag of run.py, by section, with the defaults of `simclr_tf.config.Config`.

A help says what the flag does, in which unit, and what is known of its values. Names and
meanings are google-research/simclr's wherever it has the flag. Only run.py and this package read
flags; simclr_tf/ is given a frozen Config.
"""

from __future__ import annotations

from collections.abc import Iterable
import dataclasses
from typing import Any

from absl import flags

from simclr_tf import config
from simclr_tf.config import decay
from simclr_tf.data import operation_names

FLAGS = flags.FLAGS

# Section title -> names of its flags, in the order of definition; `--help` prints it.
SECTIONS: dict[str, list[str]] = {}

_DEFAULTS: dict[str, Any] = {
    field.name: field.default for field in dataclasses.fields(config.Config)
}
# Short forms of --mode: what they mean for --mode and --train_mode.
SHORT_MODES = {"pretrain": ("train", "pretrain"), "finetune": ("train", "finetune")}


def _section(title: str, **helps: str) -> None:
    """Defines a flag per argument, of the type that its default in Config has."""
    SECTIONS[title] = list(helps)
    for name, told in helps.items():
        default = _DEFAULTS[name]
        if isinstance(default, bool):
            flags.DEFINE_bool(name, default, told)
        elif isinstance(default, int) and name != "warmup_epochs":
            flags.DEFINE_integer(name, default, told)
        elif isinstance(default, (int, float)):
            flags.DEFINE_float(name, default, told)
        else:
            flags.DEFINE_string(name, default, told)


def _one_of(choices: Iterable[str]) -> str:
    return " | ".join(choices)


_section(
    "What to do",
    mode=f"{_one_of((*config.MODES, *SHORT_MODES))}. train_then_eval ends in a number and a "
    "SavedModel. eval reads everything else from --model_dir. pretrain and finetune are short for "
    "train with that --train_mode. check_data reads every image and lists what is wrong with it. "
    "show_views writes a picture of every operation on your images. convert writes weights of "
    "google-research/simclr (--checkpoint) as a run of ours (--model_dir). export writes a "
    "SavedModel of what --model_dir holds, or of --checkpoint.",
    train_mode=f"{_one_of(config.TRAIN_MODES)}. pretrain learns without labels (NT-Xent); "
    "finetune learns labels, from --checkpoint or from scratch.",
    model_dir="Folder of the run: checkpoints, metrics, result.json, saved_model/. Running the "
    "same command again resumes from the last checkpoint in it.",
    checkpoint="Where training starts: the --model_dir of a pretraining, or one checkpoint in it; "
    "or what google-research/simclr wrote, told by its content: a SavedModel, a checkpoint of its "
    "TF2 or TF1 code, or a folder that holds one. The network is that of the weights. In eval: the "
    "weights to evaluate, if --model_dir holds none.",
    format=f"{_one_of(config.FORMATS)}. What export writes: serving, for TensorFlow Serving, as "
    "training does in the end; official, called like google-research/simclr's SavedModels, with "
    "their outputs and names of variables, for code that was written for those.",
    seed="Order of the data, augmentation and initial weights are functions of it.",
)
_section(
    "Data",
    dataset="A name of tensorflow-datasets, image_folder (with --data_dir=PATH), or digits, which "
    "comes with this program.",
    data_dir="Where tensorflow-datasets keeps its data; for image_folder the folder itself: "
    "split/class/*.jpg, class/*.jpg, or just images. JPEG, PNG, BMP or GIF.",
    train_split="Split to train on, in tensorflow-datasets syntax, such as train[:10%].",
    eval_split="Split to evaluate on. Left out, it is validation or test, whichever there is.",
    image_size="Side in pixels of the images that the encoder sees. Up to 32 they get a stem that "
    "keeps their resolution, and no centre crop in evaluation.",
    cache_dataset="Keeps the encoded images in memory after the first epoch. Refused if they would "
    "not fit.",
    max_bad_images="How many damaged images to leave out. Above 0 every image is read once before "
    "training, and what is left out is told and listed in bad_images.json; 0 stops at the first.",
    data_service="Address of a tf.data service, grpc://HOST:PORT, whose workers prepare the input: "
    "for when this machine's CPUs cannot keep up. They must see the same files. The order of "
    "images then depends on timing, and epochs overlap.",
    samples_per_class="m: batches hold m different images of each of B / m classes, drawn from "
    "(seed, step); 0 draws images whatever their class. For objectives that read labels. An image "
    "folder reads the files; the encoded images of any other data set are kept in memory.",
)
_section(
    "Views",
    augmentation="auto: simclr for pretraining, supervised (crop and flip) for fine-tuning. Or a "
    "policy by name: those two, autoaugment, autoaugment_cifar10, randaugment, and SupCon's "
    "simaugment and stacked_randaugment. Or operations in their order, as in crop,color: crop, "
    f"{', '.join(operation_names.OPERATIONS)}, and color for color_jitter,color_drop.",
    augmentation_branches=f"{_one_of(config.BRANCHES)}. one leaves the second view at its crop, as "
    "in the paper's study of single operations.",
    augment_on=f"{_one_of(config.AUGMENT_ON)}. Where views are made: by the CPU beside training or "
    "by the accelerator inside the step. Equal pixels either way. auto: host; with --accum_chunks "
    "device, where only the views of one chunk are in memory at once.",
    use_crop="Random crop and resize. Off, images are only resized.",
    crop_area_min="Smallest crop, as a share of the image's area. The paper: 0.08.",
    use_flip="Horizontal flip of every second view.",
    use_color_jitter="Brightness, contrast, saturation and hue, in random order, with probability "
    "0.8.",
    use_color_drop="Grey with probability 0.2.",
    use_blur="Gaussian blur with probability 0.5. The paper blurs ImageNet and not CIFAR-10.",
    color_jitter_strength="Strength of the colour jitter: 1.0 for ImageNet, 0.5 for CIFAR-10. 0 "
    "switches jitter and grey off. SupCon's policies take 0.5.",
    brightness=f"{_one_of(config.BRIGHTNESSES)}. How the jitter changes brightness: by a factor, "
    "as SimCLRv2's code, or by a sum, as SimCLR's.",
    jitter_order=f"{_one_of(config.JITTER_ORDERS)}. Whether each view draws its own order of the "
    "four ops of the jitter.",
    randaugment_layers="Operations per view of RandAugment.",
    randaugment_level="Their strength, from 0 to 10.",
)
_section(
    "Network",
    encoder="resnet; keras:NAME, a network of tf.keras.applications such as EfficientNetV2B0, fed "
    "as its preprocess_input says; or MODULE:FUNCTION, your own: called with input_shape=(s, s, 3) "
    "it returns a Keras model from images in [0, 1] to features or a map. Of the last two, batch "
    "norms become ours, and dropout and stochastic depth are off.",
    resnet_depth="18, 34, 50, 101, 152, 200, or of the small CIFAR family 20, 32, 44, 56, 110 "
    "(also 8 and 14).",
    width_multiplier="Multiplies the channels; the papers go up to 4.",
    stem=f"{_one_of(config.STEM_CHOICES)}. small: 3x3 convolution, no max-pool. imagenet: 7x7 with "
    "stride 2, max-pool. auto: small up to 32 px.",
    sk_ratio="Above 0, selective kernels: two 3x3 streams, mixed by a network of this share of "
    "their width, and the stem and shortcuts of ResNet-D. SimCLRv2: 0.0625, 3 points better for "
    "half as many parameters again. In basic blocks (18, 34, CIFAR) only the stem and shortcuts.",
    se_ratio="Above 0, squeeze-excitation: scales each channel by a network of this share of the "
    "block's width. Its paper: 1/16, which is 0.25 in the bottlenecks here.",
    proj_head_mode=f"{_one_of(config.PROJ_HEAD_MODES)}. The paper: nonlinear is 3 points better "
    "than linear and over 10 better than none.",
    proj_out_dim="Width of the projection. From 32 to 2048 the paper saw little difference.",
    num_proj_layers="Layers of the nonlinear head: 2 in SimCLR, 3 in SimCLRv2. All but the last "
    "are as wide as the features.",
    proj_head_bn="Batch norm in the projection head. SupCon's heads have none, and biases instead: "
    "off with --num_proj_layers=2 is its 2048-128, with --proj_head_mode=linear its 128.",
    normalize_features="Gives the features length 1 before both heads, as SupCon on ImageNet. They "
    "are what is evaluated and exported, too.",
    ft_proj_selector="Which stage of the projection head the classifier reads: 0 the encoder's "
    "features, 1 the first layer (SimCLRv2 with few labels), -1 the last.",
    global_bn="Takes batch-norm statistics over all replicas, which keeps views from recognising "
    "each other by their replica's statistics.",
    batch_norm_decay="What the moving averages of batch norm keep of themselves each step.",
)
_section(
    "Objective",
    objective=f"{_one_of(config.OBJECTIVES)}. auto: nt_xent (SimCLR) for pretraining, supervised "
    "(cross-entropy) for fine-tuning. nt_logistic and margin_triplet are SimCLR's table 2. supcon "
    "learns from labels which views belong together (L_out), supcon_in is its L_in, n_pairs takes "
    "one other image of the class (its paper: --temperature=1). distill learns from --teacher.",
    temperature="Divides the similarities. The papers' best: 0.1 on ImageNet and for SupCon, 0.5 "
    "on CIFAR-10 in long training.",
    hidden_norm="Takes cosine similarities, by l2-normalising the projections.",
    negatives=f"{_one_of(config.NEGATIVES)}. Where the negatives of a view come from: all views of "
    "other images, or only those of the other side, as in SimCLR's comparison of losses (B.10).",
    semi_hard="nt_logistic and margin_triplet take the hardest negative that is still less similar "
    "than the positive, in place of all: 6 points better in the paper.",
    margin="Of margin_triplet, in cosine similarity. The paper tried 0, 0.4, 0.8 and 1.6.",
    supcon_positives="At most so many positives for each view, its own image first; the surplus "
    "leaves the denominator too. 0 keeps all. The paper: 69.3% with 1, 78.0 with 5, 78.5 with all.",
    scale_by_temperature="Multiplies SupCon's losses by the temperature, as its paper does, which "
    "makes the learning rate independent of it.",
    lineareval_while_pretraining="Trains a linear head along, on labels if there are any, behind a "
    "stop_gradient: the encoder learns nothing from it.",
)
_section(
    "Classification",
    label_smoothing="Of the cross-entropy, from 0 to 1. SupCon's baselines on ImageNet: 0.05.",
    mixup="Mixes each image with another of its replica's batch, by a share from Beta(a, a): this "
    "is a. 0: off; ImageNet's usual value is 0.2.",
    cutmix="Pastes a box of another image instead; a as for --mixup. Its paper: 1.",
    teacher="Whose classes --objective=distill learns: a run directory, or a SavedModel with "
    "logits; google-research/simclr's too.",
    distillation_temperature="Of the teacher's and the student's softmax. SimCLRv2: 0.1 for a "
    "student like its teacher, 1 for a smaller one.",
    distillation_weight="Share of the teacher in the loss; the labels have the rest. At 1 no label "
    "is read.",
)
_section(
    "Fine-tuning",
    fine_tune_after_block="-1 trains everything; 0 freezes the stem, 1 to 3 up to that group, 4 "
    "the whole encoder (linear evaluation by gradient descent). Frozen batch norms stay frozen.",
    zero_init_logits_layer="Starts the classifier at zero.",
)
_section(
    "Training",
    train_batch_size="Images per step over all replicas, counted before two views are made of "
    "each. A multiple of the number of replicas.",
    train_epochs="Passes over the training split. The papers: 100 to 1000.",
    train_steps="Steps of training; above 0 it overrides --train_epochs.",
    accum_chunks="Takes each replica's batch in so many chunks, one after another, and descends "
    "the gradient of the whole batch, negatives and all: memory of a chunk, about 4/3 of the time. "
    "Batch norm sees a chunk at a time.",
    optimizer=f"{_one_of(config.OPTIMIZERS)}. The papers pretrain with lars and evaluate with "
    "momentum (Nesterov); SupCon also with rmsprop. lamb needs tensorflow-addons (Python up to "
    "3.11).",
    learning_rate="Base rate, scaled by the batch size as --learning_rate_scaling says.",
    learning_rate_scaling="linear: rate * batch / 256. sqrt: rate * sqrt(batch), another unit: 0.3 "
    "linear and 0.075 sqrt agree at batch 4096. sqrt is better for small batches.",
    warmup_epochs="Epochs of linear warm-up from 0.",
    learning_rate_decay=f"{_one_of(decay.DECAYS)}. After warm-up: half a cosine to 0, as the "
    "papers pretrain; or the rate times --decay_factor every --decay_epochs epochs after warm-up "
    "(SupCon's classifiers on ImageNet: 0.97 every 0.5); or at each of the --decay_epochs (on "
    "CIFAR-10: 0.2 at 60,75,90).",
    decay_epochs="Of exponential: one number, the epochs between two falls. Of step: the epochs at "
    "which the rate falls, counted from the start of training, with commas.",
    decay_factor="What the rate is multiplied by each time it falls.",
    momentum="Of lars, momentum and rmsprop.",
    weight_decay="L2 decay. SimCLR's paper: 1e-6; its published commands: 1e-4.",
)
_section(
    "Checkpoints and logs",
    checkpoint_epochs="Epochs between checkpoints.",
    checkpoint_steps="Steps between checkpoints; above 0 it overrides --checkpoint_epochs.",
    keep_checkpoint_max="How many checkpoints to keep.",
    keep_hub_module_max="How many SavedModels to keep.",
    train_summary_steps="Steps between records in metrics.jsonl and TensorBoard; 0: each epoch, "
    "at most 100.",
)
_section(
    "Evaluation",
    eval_batch_size="Images per batch of evaluation. Every image counts once whatever it is.",
    eval_steps="Batches to evaluate; 0 evaluates the whole split.",
    eval_name="Accepted, with a warning, and unused, as in google-research/simclr tf2/.",
    linear_eval="Fits a logistic regression on the frozen features of the training split.",
    linear_eval_examples="How many training images that regression learns from at most.",
)
_section(
    "Machine",
    use_tpu="Trains on a TPU. Otherwise all GPUs are used, or the CPU.",
    tpu_name="Name or address of the TPU; none: that of this machine (Colab, TPU VM).",
    tpu_zone="Zone of a Cloud TPU.",
    gcp_project="Project of a Cloud TPU.",
    master="Address of the TPU, if --tpu_name is not given.",
    num_virtual_cpus="Splits the CPU into this many replicas, to try that path anywhere.",
    mixed_precision=f"{_one_of(config.MIXED_PRECISIONS)}. Arithmetic of the layers; loss, "
    "normalisation and statistics stay float32. Only fast where the hardware has it.",
    jit_compile="Compiles the training step by XLA; one device only.",
    recompute="Keeps of each block group of the ResNet only what goes in and out, and computes the "
    "rest again in the backward pass: less memory, about 4/3 of the time, the same result. "
    "--accum_chunks saves memory too, but batch norm then sees less at a time.",
)


def to_config(**changes: Any) -> config.Config:
    """Returns the run that the parsed flags describe, with some fields changed."""
    values: dict[str, Any] = {name: FLAGS[name].value for name in _DEFAULTS}
    if values["mode"] in SHORT_MODES:
        values["mode"], values["train_mode"] = SHORT_MODES[values["mode"]]
    return config.Config(**{**values, **changes})
