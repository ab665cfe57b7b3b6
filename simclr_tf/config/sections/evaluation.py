"""What is evaluated, and on how many images."""

from __future__ import annotations

import dataclasses

from simclr_tf import errors, text
from simclr_tf.config.metadata import Section
from simclr_tf.config.sections import bounds

# Evaluations that `--evaluations` may name, and those that "auto" runs where there are labels.
EVALUATIONS = (
    *("knn", "per_class", "retrieval", "calibration", "selective", "clusters", "geometry"),
    *("map", "probes", "projection", "label_free"),
    *("robustness", "shifts", "ood"),  # On other images.
)
_AUTO_EVALUATIONS = EVALUATIONS[:7]

_EVALUATION = Section("Evaluation")


@dataclasses.dataclass(frozen=True)
class EvaluationSettings:
    """What is evaluated, and on how many images."""

    eval_batch_size: int = _EVALUATION.setting(
        256,
        "Images per batch in evaluation. The result does not depend on it.",
        at_least=1,
        reason="it counts images",
        resume="freely",
        at_most=bounds.MAX_BATCH,
        limit_reason="larger ones do not fit in memory",
    )
    eval_steps: int = _EVALUATION.setting(
        0,
        "Number of batches to evaluate; 0: the whole split.",
        at_least=0,
        reason="0 means the whole split",
        resume="freely",
        at_most=bounds.MANY,
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
        "map, probes, projection, label_free and those on other images (robustness, shifts, ood), "
        "or label_free where there are no labels. docs/evaluation.md explains them.",
        resume="freely",
    )
    untrained_baselines: bool = _EVALUATION.setting(
        True,
        "In train_then_eval, also fits the linear classifier to raw pixels and to the features of "
        "the untrained encoder: the accuracies to beat.",
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
        at_most=bounds.MANY,
        limit_reason="no data set is larger",
    )

    eval_epochs: int = _EVALUATION.setting(
        0,
        "Epochs between evaluations during training, the last of them at its end, on images of the "
        "training split that are left out of training. They write validation/... to metrics.jsonl "
        "and decide which checkpoint is the best: it is kept whatever --keep_checkpoint_max is, "
        "best.json names it, and --checkpoint=RUN/best or --teacher=RUN/best reads it. The "
        "evaluation split has no part in this. 0: off, and all images are trained on. "
        "docs/evaluation.md explains the numbers.",
        at_least=0,
        reason="0 turns it off",
        at_most=bounds.MANY_EPOCHS,
        limit_reason="no training takes as long",
    )
    validation_examples: int = _EVALUATION.setting(
        0,
        "With --eval_epochs: number of images of the training split that are left out of training, "
        "the same fraction of every class, drawn by the seed. 0: a tenth, at most 2,000. The "
        "linear evaluation after training uses the whole training split.",
        at_least=2,
        zero_is_off=True,
        reason="0 chooses the number automatically",
        at_most=bounds.MANY,
        limit_reason="no data set is larger",
    )

    @property
    def evaluation_names(self) -> tuple[str, ...]:
        """The evaluations to run where there are labels, in the order of `EVALUATIONS`.

        Raises:
            UserError: if there is no such evaluation.
        """
        if self.evaluations in ("auto", "none", "all"):
            chosen = {
                "auto": _AUTO_EVALUATIONS,
                "none": (),
                "all": EVALUATIONS,
            }
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
