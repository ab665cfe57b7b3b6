"""The images, and their labels and splits."""

from __future__ import annotations

import dataclasses
import re

from simclr_tf import pixel_format
from simclr_tf.config.metadata import Section
from simclr_tf.config.sections import bounds, objective
from simclr_tf.data import label_origin

_TFRECORD = ("dataset", ("tfrecord:GLOB",))

_DATA = Section("Data")
_PIXELS = Section("Channels and depth")
_FEW_LABELS = Section("Few labels")


@dataclasses.dataclass(frozen=True)
class DataSettings:
    """The images, and their labels and splits."""

    dataset: str = _DATA.setting(
        "imagenet2012",
        "Name of a data set of tensorflow-datasets; image_folder, for the images in --data_dir; "
        "csv:FILE, for images with the labels in a CSV file (see --labels), which are in its "
        "folder or in --data_dir; array:FILE, for a .npz file with arrays such as train_images and "
        "train_labels, or a .npy file of images; tfrecord:GLOB, for TFRecord files of "
        "tf.train.Example, such as "
        "'tfrecord:/data/imagenet/*-of-*'; or digits, which is included in this program. Files of "
        "tfrecord:GLOB that are named like validation-00000-of-00010 or test_000.tfrecord are the "
        "split of that name, others are train.",
        path_pattern="(?:csv|tfrecord|array):(.*)",
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
        "none. Images may have several labels: a column labels, with the classes separated by |, "
        "or a column for each class, of 1, 0 or nothing where it is not known; see "
        "docs/several_labels.md.",
        resume="freely",
        path_pattern=rf"(?i:(.+(?:{'|'.join(map(re.escape, label_origin.SUFFIXES))})))",
    )
    group: str | None = _DATA.setting(
        None,
        "What images have in common that are not independent, such as a patient, slide or scene: "
        "name of a column of the file of labels, or a regular expression that is searched in the "
        "path of an image, such as '(patient\\d+)'; its group 1 is the group or, without one, the "
        "whole match. Groups are kept together where this program holds out images to evaluate on "
        "or to choose the linear classifier on, and intervals and tests are over groups. Give it "
        "in training, too, which decides what is held out. The images of --eval_epochs and the "
        "draws of --labels_per_class and --label_fraction ignore groups. For image_folder and "
        "csv:FILE.",
    )
    image_key: str = _DATA.setting(
        "image/encoded",
        "Key of the image in a tf.train.Example: an encoded file, a serialized tensor, or a list "
        "of numbers or raw bytes beside their shape.",
        only_with=_TFRECORD,
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
        "Keeps the images in memory: decoded if the data set says that all have one size, encoded "
        "otherwise. Refused if they do not fit. Decoded images below 10% of the free memory are "
        "kept without it. Neither changes what the network sees.",
        resume="freely",
    )
    max_bad_images: int = _DATA.setting(
        0,
        "How many unreadable images to exclude. Above 0, every image is read once before training, "
        "and the excluded ones are reported and listed in bad_images.json. With 0, training stops "
        "at the first unreadable image.",
        at_least=0,
        reason="0 stops at the first",
        at_most=bounds.MANY,
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
        only_with=("objective", (*objective.SUPERVISED_CONTRAST, "supervised")),
        at_most=bounds.MAX_BATCH,
        limit_reason="no batch is larger",
    )

    # Channels and depth.
    channels: str = _PIXELS.setting(
        "auto",
        "Number of channels of the images. auto: that of --checkpoint or, without it, of the data: "
        "pictures of 8 bits become red, green and blue, as with rgb, and images of another depth "
        "or of more channels (PNG of 16 bits, TIFF, .npy, .npz) are taken as they are stored. rgb: "
        "all are converted to red, green and blue of 8 bits, the upper 8 of 16. A number: all are "
        "taken as they are stored, and must have as many.",
        resume="never",
    )
    scale: str = _PIXELS.setting(
        "auto",
        "Which values of a channel become 0 and 1; what is beyond is clipped. It is found once, "
        "from the training split, stored in architecture.json, and applied in training, "
        "evaluation, embeddings and the SavedModel. percentile: the percentiles of "
        "--scale_percentile. minmax: the least and the greatest value. dtype: the ends of the "
        "range of whole numbers, as 0 and 65535. none: 0 and 1, of float32 that is from 0 to 1. "
        "auto: that of --checkpoint, if its images have the same channels and depth; else dtype "
        "for 8 bits and percentile otherwise.",
        choices=("auto", *pixel_format.SCALES),
        resume="never",
    )
    scale_percentile: float = _PIXELS.setting(
        0.5,
        "With --scale=percentile, the percentage of the values of a channel below what becomes 0, "
        "and above what becomes 1.",
        at_least=0,
        at_most=49,
        only_with=("scale", ("auto", pixel_format.PERCENTILE)),
        resume="never",
    )
    standardize: bool = _PIXELS.setting(
        False,
        "After the views, subtract from each channel its mean and divide by its standard "
        "deviation. Both are found with the scale, from the scaled training images, and stored and "
        "applied with it. Otherwise the network takes values from 0 to 1. Not for keras:NAME "
        "encoders, which have a preprocessing of their own.",
        resume="never",
    )
    channel_names: str | None = _PIXELS.setting(
        None,
        "Names of the channels in their order, separated by commas, such as B2,B3,B4,B8. They are "
        "stored in architecture.json, and the SavedModel's model.json has them.",
        resume="never",
    )
    channel_files: str | None = _PIXELS.setting(
        None,
        "Pattern of the files of images whose channels are files of their own: the end of their "
        "paths, in which {id} stands for what the channels of an image have in common, and "
        "{channel} for the channel, such as {id}_B{channel}.tif. Channels are named by it; "
        "--channel_names chooses some and their order, otherwise all are used, in the order of "
        "their names and numbers. For image_folder and csv:FILE.",
        only_with=("dataset", (label_origin.IMAGE_FOLDER, "csv:FILE")),
        resume="never",
    )
    show_channels: str | None = _PIXELS.setting(
        None,
        "Channels that pictures show: three as red, green and blue, or one as grey, by their "
        "numbers from 0 or their names, such as 3,2,1. each: pictures of views show every channel "
        "as grey, in a row of its own. By default red, green and blue where there are channels of "
        "these names, otherwise the first one.",
        resume="freely",
    )

    # Few labels.
    labels_per_class: int = _FEW_LABELS.setting(
        0,
        "Number of training images of each class whose labels are used; 0: all. All other labels "
        "count as missing. An objective that learns from labels sees only these images. One that "
        "does not sees all, and its linear head learns from these. The linear evaluation and "
        "all that read training labels read only these, whatever --linear_eval_examples is. "
        "labels_used.csv lists them. They follow from --seed and --label_draw, class by class, and "
        "a larger number adds images to those of a smaller one. Of data sets that can only be "
        "streamed, every record is read once to list the labels.",
        at_least=0,
        reason="0 uses all labels",
        at_most=bounds.MANY,
        limit_reason="no data set has more",
    )
    label_fraction: float = _FEW_LABELS.setting(
        0.0,
        "The same as a fraction of the images of each class, rounded, but at least one image; 0: "
        "all. 0.01 is contained in 0.1. For the published 1% and 10% of ImageNet use the data set "
        "imagenet2012_subset/1pct or /10pct instead.",
        at_least=1e-6,
        at_most=1,
        zero_is_off=True,
        reason="0 uses all labels",
    )
    label_draw: int = _FEW_LABELS.setting(
        0,
        "Number of the draw of --labels_per_class or --label_fraction: another one draws other "
        "images.",
        at_least=0,
        reason="draws are counted from 0",
        at_most=bounds.MANY,
        limit_reason="so many are never needed",
    )
    label_draws: int = _FEW_LABELS.setting(
        1,
        "Number of draws, whose mean and standard deviation are reported. The linear evaluation of "
        "a pretrained network is repeated for draws --label_draw, --label_draw + 1, and so on. If "
        "the network learns from labels, each draw is a run of its own, in draw-0, draw-1, ... of "
        "--model_dir.",
        at_least=1,
        reason="there is at least one",
        at_most=1000,
        limit_reason="each takes a fit or a run",
        resume="freely",
    )

    @property
    def has_few_labels(self) -> bool:
        """Whether only some of the labels of the training split are used."""
        return bool(self.labels_per_class or self.label_fraction)
