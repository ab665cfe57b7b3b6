"""All settings of a run, each described once: a frozen value that the whole package reads."""

from __future__ import annotations

import dataclasses
from typing import Any

from simclr_tf.config import decay as decay_lib
from simclr_tf.config import flagfile, metadata, resizing
from simclr_tf.config.sections import (
    data,
    embeddings,
    evaluation,
    logs,
    machine,
    network,
    other_images,
    run_list,
    serving,
    studies,
    task,
    training,
    transfer,
    views,
)
from simclr_tf.config.sections import objective as objective_settings
from simclr_tf.data import label_origin, operation_names


# The fields of the last base come first.
@dataclasses.dataclass(frozen=True)
class Config(
    machine.MachineSettings,
    studies.StudySettings,
    run_list.RunListSettings,
    transfer.TransferSettings,
    embeddings.EmbeddingSettings,
    other_images.OtherImageSettings,
    evaluation.EvaluationSettings,
    serving.ServingSettings,
    logs.LogSettings,
    training.TrainingSettings,
    objective_settings.ObjectiveSettings,
    network.NetworkSettings,
    views.ViewSettings,
    data.DataSettings,
    task.TaskSettings,
):
    """All settings of a run. Names and meanings are google-research/simclr's where it has them."""

    @classmethod
    def fine_tuning_defaults(cls) -> dict[str, Any]:
        """Returns the settings whose defaults differ in fine-tuning, with these defaults."""
        described = {field.name: metadata.describe(field) for field in dataclasses.fields(cls)}
        return {
            name: one.fine_tuning for name, one in described.items() if one.fine_tuning is not None
        }

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
        return self.resolved_objective in objective_settings.CONTRASTIVE_OBJECTIVES

    @property
    def resolved_num_views(self) -> int:
        """Views per image: `num_views` to contrast, one to classify."""
        return self.num_views if self.contrastive else 1

    @property
    def resolved_augmentation(self) -> str:
        """The augmentation of RGB images, see `augmentation_for`."""
        return self.augmentation_for(3)

    def augmentation_for(self, channels: int) -> str:
        """Returns the augmentation, which depends on objective and channels if it is "auto"."""
        if self.augmentation != "auto":
            return self.augmentation
        return operation_names.fitting(channels) if self.contrastive else "supervised"

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
        return objective not in objective_settings.UNSUPERVISED_OBJECTIVES

    @property
    def decay(self) -> decay_lib.Decay:
        """How the learning rate decays.

        Raises:
            UserError: see `decay.parse`.
        """
        return decay_lib.parse(self.learning_rate_decay, self.decay_epochs, self.decay_factor)

    @property
    def view_sizes(self) -> tuple[resizing.Part, ...]:
        """The sizes of the views in the course of training.

        Raises:
            UserError: see `resizing.parse`.
        """
        return resizing.parse(self.progressive_resizing, self.image_size)

    @property
    def resolved_stem(self) -> str:
        """The stem, which depends on `image_size` if it is "auto"."""
        if self.stem != "auto":
            return self.stem
        return "small" if self.image_size <= operation_names.SMALL_IMAGE else "imagenet"
