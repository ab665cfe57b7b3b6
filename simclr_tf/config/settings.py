"""All settings of a run, each described once: a frozen value that the whole package reads."""

from __future__ import annotations

import dataclasses
import re

from simclr_tf import errors, text
from simclr_tf.config import decay as decay_lib
from simclr_tf.config import flagfile
from simclr_tf.config.metadata import Section
from simclr_tf.data import label_origin, operation_names

MODES = (
    *("train", "eval", "train_then_eval", "export", "convert", "check_data", "show_views"),
    *("compare", "replay"),
)
TRAIN_MODES = ("pretrain", "finetune")
# Contrastive objectives; those of the second group read labels.
UNSUPERVISED_OBJECTIVES = ("nt_xent", "nt_logistic", "margin_triplet")
SUPERVISED_CONTRAST = ("supcon", "supcon_in", "n_pairs")
CONTRASTIVE_OBJECTIVES = (*UNSUPERVISED_OBJECTIVES, *SUPERVISED_CONTRAST)
OBJECTIVES = ("auto", *CONTRASTIVE_OBJECTIVES, "supervised", "distill")

# Evaluations that `--evaluations` may name, and those that "auto" runs where there are labels.
EVALUATIONS = (
    *("knn", "per_class", "retrieval", "calibration", "selective", "clusters", "geometry"),
    *("map", "label_free"),
)
_AUTO_EVALUATIONS = EVALUATIONS[:7]

_WHAT = Section("What to do")
_DATA = Section("Data")
_VIEWS = Section("Views")
_NETWORK = Section("Network")
_OBJECTIVE = Section("Objective")
_CLASSIFICATION = Section("Classification")
_FINE_TUNING = Section("Fine-tuning")
_TRAINING = Section("Training")
_LOGS = Section("Checkpoints and logs")
_EVALUATION = Section("Evaluation")
_MACHINE = Section("Machine")

# Bounds that leave room for every real use.
MAX_STEPS = 10**9
_MANY = 10**9
_MANY_EPOCHS = 10**6
_MAX_BATCH = 10**6
_MAX_PROJ_LAYERS = 32

# What `only_with` of a setting may say.
_RESNET = ("encoder", ("resnet",))
_SUPERVISED = ("objective", ("supervised",))
_DISTILL = ("objective", ("distill",))
_CLASSIFIES = ("objective", ("supervised", "distill"))
_TFRECORD = ("dataset", ("tfrecord:GLOB",))


@dataclasses.dataclass(frozen=True)
class Config:
    """All settings of a run. Names and meanings are google-research/simclr's where it has them."""

    # What to do.
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
        "finite, and lists the outputs of all layers.",
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
        "Weights to start from: the --model_dir of another run, or one checkpoint in it; or "
        "weights of google-research/simclr, which are recognised by their content: a SavedModel, "
        "a checkpoint of its TF2 or TF1 code, or a folder with one of them. The network's "
        "architecture is read from the weights. In eval: the weights to evaluate if --model_dir "
        "has none, on the data of their run unless --dataset or --data_dir is given.",
        resume="freely",
        is_path=True,
    )
    runs: str | None = _WHAT.setting(
        None,
        "Run directories to compare, comma-separated. Each is compared with the first, on the "
        "images that --mode=eval evaluated.",
        only_with=("mode", ("compare",)),
        resume="freely",
    )
    format: str = _WHAT.setting(
        "serving",
        "SavedModel format that export writes. serving: for TensorFlow Serving, the same as at the "
        "end of training. official: called like the SavedModels of google-research/simclr, with "
        "the same outputs and variable names, for code that was written for those.",
        choices=("serving", "official"),
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

    # Data.
    dataset: str = _DATA.setting(
        "imagenet2012",
        "Name of a data set of tensorflow-datasets; image_folder, for the images in --data_dir; "
        "csv:FILE, for images with the labels in a CSV file (see --labels), which are in its "
        "folder or in --data_dir; tfrecord:GLOB, for TFRecord files of tf.train.Example, such as "
        "'tfrecord:/data/imagenet/*-of-*'; or digits, which is included in this program. Files of "
        "tfrecord:GLOB that are named like validation-00000-of-00010 or test_000.tfrecord are the "
        "split of that name, others are train.",
        path_pattern="(?:csv|tfrecord):(.*)",
    )
    data_dir: str | None = _DATA.setting(
        None,
        "Where tensorflow-datasets keeps its data. For image_folder, the folder of images: "
        "split/class/*.jpg, class/*.jpg, split/*.jpg, or images alone (--labels reads others). "
        "Splits have usual names, such as train and test, in any case. JPEG, PNG, "
        "BMP, GIF, WebP, TIFF, AVIF or JPEG 2000.",
        resume="freely",
        is_path=True,
    )
    labels: str = _DATA.setting(
        label_origin.FOLDERS,
        "Labels of the images of image_folder. folders: the names of their folders. none: no "
        "labels; images are read at any depth. Or a file (.csv, .tsv, .txt) whose first line names "
        "the columns file, label and, optionally, split; images may be at any depth, paths are "
        "relative to --data_dir, images that are not listed are left out, and an empty label means "
        "none.",
        resume="freely",
        path_pattern=rf"(?i:(.+(?:{'|'.join(map(re.escape, label_origin.SUFFIXES))})))",
    )
    image_key: str = _DATA.setting(
        "image/encoded", "Key of the encoded image in a tf.train.Example.", only_with=_TFRECORD
    )
    label_key: str = _DATA.setting(
        "image/class/label",
        "Key of the label in a tf.train.Example, an integer or a name. Empty: the images are "
        "unlabelled. Labels that are integers are named by image/class/text, if the records have "
        "it.",
        only_with=_TFRECORD,
    )
    train_split: str = _DATA.setting(
        "train",
        "Split to train on, in the syntax of tensorflow-datasets, such as train[:10%]. If the data "
        "set has no split of that name, one that means the same is used, such as Training for "
        "train. With train+unlabeled, the linear head learns from the images that have labels.",
    )
    eval_split: str = _DATA.setting(
        "validation",
        "Split to evaluate on. By default the first of validation, test, testing, val, valid, "
        "eval, evaluation and dev that the data set has, one with labels if there is any.",
        resume="freely",
    )
    image_size: int = _DATA.setting(
        224,
        "Side in pixels of the images that the encoder sees. Up to 32, the stem keeps the "
        "resolution and evaluation does not crop.",
        at_least=8,
        reason="it is the side of the square that the encoder sees, in pixels",
        resume="never",
        at_most=4096,
        limit_reason="larger images do not fit in memory",
    )
    cache_dataset: bool = _DATA.setting(
        False,
        "Keeps the encoded images in memory after the first epoch. Refused if they do not fit.",
        resume="freely",
    )
    max_bad_images: int = _DATA.setting(
        0,
        "How many unreadable images to exclude. Above 0, every image is read once before training, "
        "and the excluded ones are reported and listed in bad_images.json. With 0, training stops "
        "at the first unreadable image.",
        at_least=0,
        reason="0 stops at the first",
        at_most=_MANY,
        limit_reason="no data set has more",
    )
    data_service: str | None = _DATA.setting(
        None,
        "Address of a tf.data service, grpc://HOST:PORT, whose workers prepare the input when this "
        "machine's CPUs are too slow. The workers must be able to read the same files, and decode "
        "JPEG, PNG, GIF and uncompressed BMP only. The order of the images then depends on timing, "
        "and epochs overlap.",
    )
    samples_per_class: int = _DATA.setting(
        0,
        "m: each batch holds m different images of each of B / m classes, drawn from (seed, step). "
        "0 draws images regardless of their class. For objectives that read labels. Images of an "
        "image folder are read from disk; other data sets are kept in memory, encoded.",
        at_least=0,
        reason="0 draws images regardless of their class",
        only_with=("objective", (*SUPERVISED_CONTRAST, "supervised")),
        at_most=_MAX_BATCH,
        limit_reason="no batch is larger",
    )

    # Views.
    augmentation: str = _VIEWS.setting(
        "auto",
        "auto: simclr for pretraining, supervised (crop and flip) otherwise. Or the name of a "
        "policy: simclr, supervised, autoaugment, autoaugment_cifar10, randaugment, and SupCon's "
        "simaugment and stacked_randaugment. Or a list of operations in their order, such as "
        f"crop,color: crop, {', '.join(operation_names.OPERATIONS)}, and color for "
        "color_jitter,color_drop.",
    )
    augmentation_branches: str = _VIEWS.setting(
        "both",
        "one: the second view is only cropped, as in the paper's study of single operations.",
        choices=operation_names.BRANCHES,
    )
    augment_on: str = _VIEWS.setting(
        "auto",
        "Where views are made: on the host's CPU in parallel with training, or on the accelerator "
        "(device) as the first part of a training step. The pixels are equal. auto: host; with "
        "--accum_chunks device, so that only one chunk's views are in memory at a time.",
        choices=("auto", "host", "device"),
        resume="freely",
    )
    use_crop: bool = _VIEWS.setting(
        True, "Random crop and resize. If off, images are only resized."
    )
    crop_area_min: float = _VIEWS.setting(
        0.08,
        "Smallest area of a random crop, as a fraction of the image's area. The paper: 0.08. The "
        "code of google-research/simclr has 0.1 in effect.",
        at_least=0.01,
        at_most=1,
    )
    use_flip: bool = _VIEWS.setting(True, "Horizontal flip with probability 0.5.")
    use_color_jitter: bool = _VIEWS.setting(
        True, "Brightness, contrast, saturation and hue, in random order, with probability 0.8."
    )
    use_color_drop: bool = _VIEWS.setting(True, "Conversion to grey with probability 0.2.")
    use_blur: bool = _VIEWS.setting(
        True,
        "Gaussian blur with probability 0.5. The paper uses it on ImageNet, not on CIFAR-10.",
    )
    color_jitter_strength: float = _VIEWS.setting(
        1.0,
        "Strength of the colour jitter: 1.0 for ImageNet, 0.5 for CIFAR-10 and for SupCon's "
        "policies. 0 turns off jitter and grey.",
        at_least=0,
        reason="0 turns colour distortion off",
        at_most=10,
        limit_reason="the papers use up to 1",
    )
    brightness: str = _VIEWS.setting(
        "multiplicative",
        "How jitter changes brightness: multiplied by a factor, as in SimCLRv2's code, or added, "
        "as in SimCLR's.",
        choices=("multiplicative", "additive"),
    )
    jitter_order: str = _VIEWS.setting(
        "random",
        "Whether each view draws its own order of the four operations of the jitter.",
        choices=("random", "fixed"),
    )
    randaugment_layers: int = _VIEWS.setting(
        2,
        "Number of RandAugment operations per view.",
        at_least=1,
        reason="it counts operations per view",
        at_most=16,
        limit_reason="the papers use up to 3",
    )
    randaugment_level: float = _VIEWS.setting(
        10.0, "Strength of RandAugment operations, from 0 to 10.", at_least=0, at_most=10
    )

    # Network.
    encoder: str = _NETWORK.setting(
        "resnet",
        "resnet; keras:NAME, a network of tf.keras.applications such as EfficientNetV2B0, with its "
        "own preprocess_input; or MODULE:FUNCTION, your own function, which is called with "
        "input_shape=(s, s, 3) and returns a Keras model from images in [0, 1] to features or a "
        "feature map. In the last two, batch norm layers are replaced by cross-replica ones, and "
        "dropout and stochastic depth are off.",
        resume="never",
    )
    resnet_depth: int = _NETWORK.setting(
        50,
        "Depth of the ResNet: 18, 34, 50, 101, 152, 200, or of the small CIFAR family 20, 32, 44, "
        "56, 110 (also 8 and 14).",
        resume="never",
        at_least=8,
        at_most=200,
        reason="18, 34, 50, 101, 152, 200, or 8, 14, 20, 32, 44, 56, 110 of the CIFAR family",
    )
    width_multiplier: int = _NETWORK.setting(
        1,
        "Multiplies the number of channels; the papers use 1 to 4.",
        at_least=1,
        reason="it multiplies the channels",
        only_with=_RESNET,
        resume="never",
        at_most=16,
        limit_reason="the papers use up to 4",
    )
    stem: str = _NETWORK.setting(
        "auto",
        "small: 3x3 convolution without max-pooling. imagenet: 7x7 convolution with stride 2, then "
        "max-pooling. auto: small up to 32 px.",
        choices=("auto", "small", "imagenet"),
        only_with=_RESNET,
        resume="never",
    )
    sk_ratio: float = _NETWORK.setting(
        0.0,
        "Above 0: selective kernels, which mix two 3x3 streams by a network of this fraction of "
        "their width, with the stem and shortcuts of ResNet-D. SimCLRv2 uses 0.0625, for 3 points "
        "of accuracy at 1.5 times the parameters. In basic blocks (18, 34, CIFAR) only the stem "
        "and shortcuts change.",
        at_least=0,
        at_most=1,
        only_with=_RESNET,
        resume="never",
    )
    se_ratio: float = _NETWORK.setting(
        0.0,
        "Above 0: squeeze-excitation, which scales each channel by a network of this fraction of "
        "the block's width. The paper's 1/16 corresponds to 0.25 in the bottlenecks here.",
        at_least=0,
        at_most=1,
        only_with=_RESNET,
        resume="never",
    )
    proj_head_mode: str = _NETWORK.setting(
        "nonlinear",
        "Projection head. In the paper nonlinear is 3 points better than linear and more than 10 "
        "better than none.",
        choices=("none", "linear", "nonlinear"),
        resume="never",
    )
    proj_out_dim: int = _NETWORK.setting(
        128,
        "Output width of the projection head. The paper saw little difference from 32 to 2048.",
        at_least=1,
        reason="it is the width of the projection",
        resume="never",
        at_most=65536,
        limit_reason="the paper uses up to 2048",
    )
    num_proj_layers: int = _NETWORK.setting(
        3,
        "Layers of the nonlinear head: 2 in SimCLR, 3 in SimCLRv2. All but the last have the width "
        "of the features.",
        at_least=1,
        reason="use --proj_head_mode=none for no head",
        resume="never",
        at_most=_MAX_PROJ_LAYERS,
        limit_reason="the papers use up to 4",
    )
    proj_head_bn: bool = _NETWORK.setting(
        True,
        "Batch norm in the projection head. SupCon's heads have biases instead: off with "
        "--num_proj_layers=2 is its 2048-128 head, off with --proj_head_mode=linear its 128 head.",
        resume="never",
    )
    normalize_features: bool = _NETWORK.setting(
        False,
        "l2-normalises the features before both heads, as SupCon does on ImageNet. Evaluation and "
        "export then use the normalised features.",
        resume="never",
    )
    ft_proj_selector: int = _NETWORK.setting(
        0,
        "Layer of the projection head that the classifier reads: 0 the encoder's features, 1 the "
        "first layer (SimCLRv2 with few labels), -1 the last.",
        resume="never",
        at_least=-1,
        at_most=_MAX_PROJ_LAYERS,
        reason="-1 is the last layer",
        limit_reason="a head has no more layers",
    )
    global_bn: bool = _NETWORK.setting(
        True,
        "Computes batch-norm statistics over all replicas, so that the statistics of a replica do "
        "not reveal which images belong together.",
    )
    batch_norm_decay: float = _NETWORK.setting(
        0.9,
        "Decay of the moving averages of batch norm, per step.",
        at_least=0,
        at_most=1,
        resume="never",
    )

    # Objective.
    objective: str = _OBJECTIVE.setting(
        "auto",
        "auto: nt_xent (SimCLR) for pretraining, supervised (cross-entropy) for fine-tuning. "
        "nt_logistic and margin_triplet are those of SimCLR's table 2. supcon learns from labels "
        "which views belong together (L_out); supcon_in is L_in; n_pairs takes one other image of "
        "the class (its paper: --temperature=1). distill learns from --teacher.",
        choices=OBJECTIVES,
        resume="never",
    )
    temperature: float = _OBJECTIVE.setting(
        0.1,
        "Divides the similarities of the contrastive loss. The papers' best values: 0.1 on "
        "ImageNet and for SupCon, 0.5 on CIFAR-10 in long training.",
        at_least=1e-4,
        at_most=10_000,
        reason="beyond these, float32 is not precise enough",
    )
    hidden_norm: bool = _OBJECTIVE.setting(
        True, "l2-normalises the projections, so that similarities are cosines."
    )
    negatives: str = _OBJECTIVE.setting(
        "both",
        "Negatives of a view: all views of other images, or only those of the other side, as in "
        "SimCLR's comparison of losses (B.10).",
        choices=("both", "one"),
        only_with=("objective", UNSUPERVISED_OBJECTIVES),
    )
    semi_hard: bool = _OBJECTIVE.setting(
        False,
        "Uses only the hardest negative that is less similar than the positive, instead of all: 6 "
        "points better in the paper.",
        only_with=("objective", ("nt_logistic", "margin_triplet")),
    )
    margin: float = _OBJECTIVE.setting(
        0.8,
        "Margin of margin_triplet, in cosine similarity. The paper tried 0, 0.4, 0.8 and 1.6.",
        at_least=0,
        reason="it is a difference of similarities",
        only_with=("objective", ("margin_triplet",)),
        at_most=1000,
        limit_reason="cosine similarities differ by at most 2",
    )
    supcon_positives: int = _OBJECTIVE.setting(
        0,
        "Maximum number of positives per view; the other view of the same image is the first. "
        "Positives beyond the limit are left out of the denominator, too. 0: no limit. The paper: "
        "69.3% with 1, 78.0% with 5, 78.5% with all.",
        at_least=0,
        reason="0 keeps all positives",
        only_with=("objective", ("supcon", "supcon_in")),
        at_most=_MAX_BATCH,
        limit_reason="no batch is larger",
    )
    scale_by_temperature: bool = _OBJECTIVE.setting(
        False,
        "Multiplies SupCon's losses by the temperature, as its paper does, so that the learning "
        "rate does not depend on it.",
        only_with=("objective", SUPERVISED_CONTRAST),
    )
    lineareval_while_pretraining: bool = _OBJECTIVE.setting(
        True,
        "If there are labels, trains a linear head during pretraining, behind a stop_gradient: the "
        "encoder learns nothing from it.",
        resume="never",
    )

    # Classification.
    label_smoothing: float = _CLASSIFICATION.setting(
        0.0,
        "Label smoothing of the cross-entropy, from 0 to 1. SupCon's ImageNet baselines: 0.05.",
        at_least=0,
        at_most=0.99,
        only_with=_SUPERVISED,
    )
    mixup: float = _CLASSIFICATION.setting(
        0.0,
        "Parameter a of mixup: each image is mixed with another one of its replica's batch, with a "
        "weight drawn from Beta(a, a). 0 turns it off. The usual value for ImageNet is 0.2.",
        at_least=0.01,
        at_most=100,
        zero_is_off=True,
        reason="0 turns it off",
        only_with=_SUPERVISED,
    )
    cutmix: float = _CLASSIFICATION.setting(
        0.0,
        "Parameter a of CutMix: as in --mixup, but a box of the other image is pasted instead. 0 "
        "turns it off. The paper uses 1.",
        at_least=0.01,
        at_most=100,
        zero_is_off=True,
        reason="0 turns it off",
        only_with=_SUPERVISED,
    )
    teacher: str | None = _CLASSIFICATION.setting(
        None,
        "Trained classifier that --objective=distill learns from: a run directory, or a SavedModel "
        "with logits, also of google-research/simclr.",
        only_with=_DISTILL,
        is_path=True,
    )
    distillation_temperature: float = _CLASSIFICATION.setting(
        1.0,
        "Temperature of both softmaxes in distillation. SimCLRv2: 0.1 if the student has the "
        "teacher's architecture, 1 if it is smaller.",
        at_least=1e-4,
        at_most=1e4,
        only_with=_DISTILL,
        reason="float32 cannot represent the result beyond",
    )
    distillation_weight: float = _CLASSIFICATION.setting(
        1.0,
        "Weight of the teacher in the loss, from 0 to 1; labels have the remaining weight. At 1, "
        "no label is read.",
        at_least=0,
        at_most=1,
        only_with=_DISTILL,
    )

    # Fine-tuning.
    fine_tune_after_block: int = _FINE_TUNING.setting(
        -1,
        "-1 trains everything; 0 freezes the stem, 1 to 3 up to that block group, 4 the whole "
        "encoder (linear evaluation by gradient descent). Frozen batch norm layers stay frozen.",
        at_least=-1,
        at_most=4,
        reason="-1 trains everything, 0 freezes the stem, 1 to 3 up to that block group, 4 the "
        "encoder",
        only_with=_CLASSIFIES,
        resume="never",
    )
    zero_init_logits_layer: bool = _FINE_TUNING.setting(
        False,
        "Initialises the classifier with zeros.",
        resume="never",
    )

    # Training.
    train_batch_size: int = _TRAINING.setting(
        512,
        "Images per step over all replicas; each gives two views in pretraining. A multiple of the "
        "number of replicas. If it is not given and the default does not suit the number of images "
        "or replicas, a smaller one is chosen, and stored with the run.",
        at_least=2,
        reason="a view is contrasted with other images",
        at_most=_MAX_BATCH,
        limit_reason="larger ones do not fit in memory",
    )
    train_epochs: int = _TRAINING.setting(
        100,
        "Passes over the training split. The papers: 100 to 1000; to fine-tune, 60 on 1% of "
        "ImageNet's labels and 30 on 10%.",
        fine_tuning=60,
        at_least=0,
        reason="it counts passes over the data",
        at_most=_MANY_EPOCHS,
        limit_reason="no training takes as long",
    )
    train_steps: int = _TRAINING.setting(
        0,
        "Number of training steps; above 0, it overrides --train_epochs.",
        at_least=0,
        reason="0 leaves it to --train_epochs",
        at_most=MAX_STEPS,
        limit_reason="no training takes as long",
    )
    accum_chunks: int = _TRAINING.setting(
        1,
        "Processes each replica's batch in this many chunks, with the gradient of the whole batch, "
        "negatives included: the memory of one chunk, for about 4/3 of the time. Batch norm sees "
        "one chunk at a time.",
        at_least=1,
        reason="1 processes the batch at once",
        at_most=_MAX_BATCH,
        limit_reason="no batch is larger",
    )
    optimizer: str = _TRAINING.setting(
        "lars",
        "The papers pretrain with lars, and fine-tune and evaluate with momentum (Nesterov) or "
        "lars; SupCon also uses rmsprop. lamb needs tensorflow-addons (Python 3.11).",
        choices=("lars", "momentum", "rmsprop", "adam", "adamw", "lamb"),
        fine_tuning="momentum",
        resume="never",
    )
    learning_rate: float = _TRAINING.setting(
        0.3,
        "Base learning rate, which --learning_rate_scaling scales with the batch size. The papers: "
        "0.3, to fine-tune 0.05, and for a linear classifier on a frozen encoder 0.1.",
        fine_tuning=0.05,
        at_least=1e-12,
        at_most=1e30,
        reason="smaller ones change nothing",
        limit_reason="larger ones overflow",
    )
    learning_rate_scaling: str = _TRAINING.setting(
        "linear",
        "linear: rate * batch / 256. sqrt: rate * sqrt(batch), which is on a different scale: 0.3 "
        "linear and 0.075 sqrt agree at batch 4096. sqrt is better for small batches.",
        choices=("linear", "sqrt"),
    )
    learning_rate_decay: str = _TRAINING.setting(
        "cosine",
        "Decay after warm-up. cosine: half a cosine to 0, as the papers pretrain. exponential: "
        "times --decay_factor every --decay_epochs epochs after warm-up (SupCon's classifiers on "
        "ImageNet: 0.97 every 0.5). step: times --decay_factor at each of the --decay_epochs (on "
        "CIFAR-10: 0.2 at 60,75,90).",
        choices=decay_lib.KINDS,
    )
    decay_epochs: str | None = _TRAINING.setting(
        None,
        "exponential: one number, the epochs between two decays. step: the epochs of the decays, "
        "counted from the start of training, comma-separated.",
        only_with=("learning_rate_decay", ("exponential", "step")),
    )
    decay_factor: float = _TRAINING.setting(
        0.1,
        "Multiplies the learning rate at each decay.",
        only_with=("learning_rate_decay", ("exponential", "step")),
        at_least=0,
        at_most=1,
    )
    warmup_epochs: float = _TRAINING.setting(
        10.0,
        "Epochs of linear warm-up of the learning rate from 0.",
        fine_tuning=0.0,
        at_least=0,
        reason="0 means no warm-up",
        at_most=_MANY_EPOCHS,
        limit_reason="no training takes as long",
    )
    momentum: float = _TRAINING.setting(
        0.9, "Momentum coefficient (lars, momentum, rmsprop).", at_least=0, at_most=1
    )
    weight_decay: float = _TRAINING.setting(
        1e-6,
        "L2 weight decay. SimCLR's paper: 1e-6, and none to fine-tune; its published commands to "
        "pretrain: 1e-4.",
        fine_tuning=0.0,
        at_least=0,
        reason="0 turns it off",
        at_most=1000,
        limit_reason="usual are 1e-6 to 1e-3",
    )

    clip_gradient_norm: float = _TRAINING.setting(
        0.0,
        "Scales the gradient of a step down to this norm, over all variables and replicas, if it "
        "is larger. train/gradient_norm in metrics.jsonl is the norm before. Usual values: 1 with "
        "adamw and lamb, 1 to 10 with momentum. With lars it changes little: lars divides the "
        "gradient of each layer by its norm. 0 turns it off.",
        at_least=1e-6,
        at_most=1e6,
        zero_is_off=True,
        reason="0 turns it off",
    )

    # Checkpoints and logs.
    checkpoint_epochs: int = _LOGS.setting(
        1,
        "Epochs between checkpoints.",
        at_least=1,
        reason="use --checkpoint_steps for less than an epoch",
        resume="freely",
        at_most=_MANY_EPOCHS,
        limit_reason="no training takes as long",
    )
    checkpoint_steps: int = _LOGS.setting(
        0,
        "Steps between checkpoints; above 0, it overrides --checkpoint_epochs.",
        at_least=0,
        reason="0 leaves it to --checkpoint_epochs",
        resume="freely",
        at_most=MAX_STEPS,
        limit_reason="no training takes as long",
    )
    keep_checkpoint_max: int = _LOGS.setting(
        5,
        "Number of checkpoints to keep.",
        at_least=1,
        reason="a run must keep its last checkpoint to be resumed",
        resume="freely",
        at_most=_MANY,
        limit_reason="no run has more",
    )
    keep_hub_module_max: int = _LOGS.setting(
        1,
        "Number of SavedModels to keep.",
        at_least=1,
        reason="the last SavedModel is kept",
        resume="freely",
        at_most=_MANY,
        limit_reason="no run has more",
    )
    train_summary_steps: int = _LOGS.setting(
        0,
        "Steps between records in metrics.jsonl and TensorBoard. 0: every epoch, but at least "
        "every 100 steps.",
        at_least=0,
        reason="0 chooses the interval automatically",
        resume="freely",
        at_most=MAX_STEPS,
        limit_reason="no training takes as long",
    )

    # Evaluation.
    eval_batch_size: int = _EVALUATION.setting(
        256,
        "Images per batch in evaluation. The result does not depend on it.",
        at_least=1,
        reason="it counts images",
        resume="freely",
        at_most=_MAX_BATCH,
        limit_reason="larger ones do not fit in memory",
    )
    eval_steps: int = _EVALUATION.setting(
        0,
        "Number of batches to evaluate; 0: the whole split.",
        at_least=0,
        reason="0 means the whole split",
        resume="freely",
        at_most=_MANY,
        limit_reason="no data set is larger",
    )
    eval_name: str | None = _EVALUATION.setting(
        None,
        "Has no effect, as in google-research/simclr tf2/; accepted with a warning.",
        resume="freely",
    )
    evaluations: str = _EVALUATION.setting(
        "auto",
        "What to measure beside the accuracies of the linear classifier and of the linear head, as "
        f"a list such as knn,calibration: {', '.join(EVALUATIONS)}. Or none, or all. auto: all but "
        "map and label_free, or label_free where there are no labels. docs/evaluation.md explains "
        "them.",
        resume="freely",
    )
    linear_eval: bool = _EVALUATION.setting(
        True,
        "Fits a logistic regression to the frozen features of the training split. Off, no other "
        "evaluation is run, and the training split is not read.",
        resume="freely",
    )
    linear_eval_examples: int = _EVALUATION.setting(
        100_000,
        "Maximum number of training images that the logistic regression is fitted to.",
        at_least=10,
        reason="the regression needs examples to learn from",
        resume="freely",
        at_most=_MANY,
        limit_reason="no data set is larger",
    )

    # Machine.
    use_tpu: bool = _MACHINE.setting(
        False,
        "Trains on a TPU. Otherwise all GPUs are used, or the CPU.",
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
        "Arithmetic of the layers; losses, normalisation and statistics stay in float32. Only "
        "faster where the hardware supports it.",
        choices=("none", "bfloat16", "float16"),
    )
    jit_compile: bool = _MACHINE.setting(
        False,
        "Compiles the training step with XLA; one device only.",
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

    def __post_init__(self) -> None:
        """Converts empty strings to None, so that --name= unsets what a flagfile sets."""
        for field in dataclasses.fields(self):
            if field.default is None and getattr(self, field.name) == "":
                object.__setattr__(self, field.name, None)

    def to_flagfile(self) -> str:
        """Returns a flagfile that describes the run completely.

        Raises:
            UserError: see `flagfile.to_text`.
        """
        return flagfile.to_text(self)

    @classmethod
    def from_flagfile(cls, content: str, *, origin: str = "the flagfile") -> Config:
        """Returns the Config that `to_flagfile` wrote; what is not in it has its default.

        Raises:
            UserError: see `flagfile.parse`.
        """
        return cls(**flagfile.parse(cls, content, origin=origin))

    @property
    def resolved_dataset(self) -> str:
        """The data set; "image_folder" for images with a file of labels."""
        return label_origin.resolve(self.dataset, self.labels)[0]

    @property
    def resolved_labels(self) -> str:
        """Where the labels of an image folder come from: "folders", "none" or a path."""
        return label_origin.resolve(self.dataset, self.labels)[1]

    @property
    def resolved_objective(self) -> str:
        """The objective, which depends on `train_mode` if it is "auto"."""
        if self.objective != "auto":
            return self.objective
        return "nt_xent" if self.train_mode == "pretrain" else "supervised"

    @property
    def contrastive(self) -> bool:
        """Whether the objective compares views with each other, rather than classifying them."""
        return self.resolved_objective in CONTRASTIVE_OBJECTIVES

    @property
    def num_views(self) -> int:
        """Views per image: two to contrast, one to classify."""
        return 2 if self.contrastive else 1

    @property
    def resolved_augmentation(self) -> str:
        """The augmentation, which depends on the objective if it is "auto"."""
        if self.augmentation != "auto":
            return self.augmentation
        return "simclr" if self.contrastive else "supervised"

    @property
    def resolved_augment_on(self) -> str:
        """Where views are made: "host" or "device"."""
        if self.augment_on != "auto":
            return self.augment_on
        return "device" if self.accum_chunks > 1 else "host"

    @property
    def reads_labels(self) -> bool:
        """Whether the encoder learns from labels."""
        objective = self.resolved_objective
        if objective == "distill":
            return self.distillation_weight < 1
        return objective not in UNSUPERVISED_OBJECTIVES

    @property
    def decay(self) -> decay_lib.Decay:
        """How the learning rate decays.

        Raises:
            UserError: see `decay.parse`.
        """
        return decay_lib.parse(self.learning_rate_decay, self.decay_epochs, self.decay_factor)

    @property
    def evaluation_names(self) -> tuple[str, ...]:
        """The evaluations to run where there are labels, in the order of `EVALUATIONS`.

        Raises:
            UserError: if there is no such evaluation.
        """
        if self.evaluations in ("auto", "none", "all"):
            chosen = {"auto": _AUTO_EVALUATIONS, "none": (), "all": EVALUATIONS}
            return chosen[self.evaluations] if self.linear_eval else ()
        names = [name.strip() for name in self.evaluations.split(",")]
        for name in names:
            if name not in EVALUATIONS:
                raise errors.ArgumentError(
                    "evaluations",
                    self.evaluations,
                    f"names {name!r}{text.suggestion(name, EVALUATIONS)}, which is not one of "
                    f"{', '.join(EVALUATIONS)}; list some of these, or give auto, all or none.",
                )
        return tuple(name for name in EVALUATIONS if name in names)

    @property
    def evaluates_without_labels(self) -> bool:
        """Whether `label_free` is measured where there are no labels."""
        return self.evaluations == "auto" or "label_free" in self.evaluation_names

    @property
    def resolved_stem(self) -> str:
        """The stem, which depends on `image_size` if it is "auto"."""
        if self.stem != "auto":
            return self.stem
        return "small" if self.image_size <= operation_names.SMALL_IMAGE else "imagenet"
