"""Evaluates a network during its training, and keeps track of the best checkpoint."""

from __future__ import annotations

from simclr_tf import console
from simclr_tf.evaluation import features, forward, label_free
from simclr_tf.evaluation import validation as measuring
from simclr_tf.models import simclr
from simclr_tf.runs import best, builders, checkpoints, metrics_log, opening, validation_images

# Images, and views of each, for the numbers that need no labels. Where there are no labels, these
# choose the checkpoint.
_IMAGES, _VIEWS, _VIEWS_BESIDE_LABELS = 1000, 10, 4


class Validation:
    """The evaluation of a run during its training."""

    def __init__(
        self, run: opening.Run, drawn: validation_images.Drawn, model: simclr.SimCLR
    ) -> None:
        """Prepares to evaluate.

        Args:
            run: the run, with the whole training split.
            drawn: its training images, divided.
            model: the network that is trained.
        """
        self._run, self._drawn = run, drawn
        # Compiled once for all evaluations.
        self._forward = forward.Forward(model, run.strategy)
        self._forward_views = forward.Forward(model, run.strategy, forward.Outputs(projection=True))

    def is_done(self, step: int) -> bool:
        """Returns whether the checkpoint of a step has been evaluated on the same images."""
        found = best.read(self._run.model_dir)
        same = found is not None and found.images == self._drawn.fingerprint
        return found is not None and same and step in found.candidates

    def evaluate(self, step: int, log: metrics_log.MetricsLog) -> None:
        """Evaluates the network, whose checkpoint of this step is complete.

        best.json is written last, so that an evaluation that was interrupted is repeated.

        Args:
            step: number of steps trained.
            log: where the numbers are written.
        """
        inputs = self._extract()
        if not inputs.are_finite():
            console.warn(
                f"The features of the validation images at step {step:,} are not finite, so it was "
                "not evaluated."
            )
            return
        numbers = measuring.measure(inputs)
        log.write(step, numbers, replacing=measuring.PREFIX)
        metric = measuring.metric_of(numbers, classifies=not self._run.config.contrastive)
        found = best.add(
            self._run.model_dir,
            checkpoints.steps(self._run.model_dir),
            metric=metric,
            images=self._drawn.fingerprint,
            step=step,
            value=numbers[metric],
        )
        which = "the best so far" if found.step == step else f"the best is step {found.step:,}"
        console.say(f"validation at step {step:,}: {measuring.in_words(numbers)}; {which}")

    def _extract(self) -> measuring.Inputs:
        run, drawn = self._run, self._drawn
        source, is_validation = run.data.source, drawn.is_validation()
        rows = features.extract(
            self._forward,
            drawn.to_evaluate(source),
            drawn.split,
            batch_size=run.config.eval_batch_size,
            progress=None,
        )
        is_validation = is_validation[rows.positions]
        names = run.data.class_names
        return measuring.Inputs(
            features=rows.features[is_validation],
            labels=rows.labels[is_validation],
            logits=None if rows.logits is None else rows.logits[is_validation],
            views=self._views(),
            bank=rows.features[~is_validation],
            bank_labels=rows.labels[~is_validation],
            num_classes=0 if names is None else len(names),
        )

    def _views(self) -> label_free.Views:
        run, drawn = self._run, self._drawn
        views = features.extract_views(
            self._forward_views,
            drawn.validation_only(run.data.source),
            drawn.split,
            builders.policy_of(run.config, run.architecture.pixels),
            images=_IMAGES,
            num_views=_VIEWS_BESIDE_LABELS if drawn.is_labelled else _VIEWS,
            seed=run.config.seed,
            shown=False,
        )
        assert views is not None, "there are two validation images at least"
        return views
