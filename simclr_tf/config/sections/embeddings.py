"""Embeddings of a data set, searching them, and auditing the data by them."""

from __future__ import annotations

import dataclasses

from simclr_tf import errors, text
from simclr_tf.config.metadata import Section
from simclr_tf.config.sections import bounds

# Modes that write or read --embeddings.
EMBEDDING_MODES = ("embed", "search", "audit")
# Outputs of the network that --embed_outputs may name.
OUTPUTS = ("features", "projection", "logits")

_EMBEDDINGS = Section("Embeddings")


@dataclasses.dataclass(frozen=True)
class EmbeddingSettings:
    """Embeddings of a data set, searching them, and auditing the data by them."""

    embeddings: str | None = _EMBEDDINGS.setting(
        None,
        "Folder of embeddings. embed writes it, search and audit read it. An embed that was "
        "interrupted resumes after its last finished shard.",
        only_with=("mode", EMBEDDING_MODES),
        resume="freely",
        stored=False,
        is_path=True,
    )
    embed_split: str = _EMBEDDINGS.setting(
        "all",
        "Splits to embed: all, or a comma-separated list of splits in the syntax of "
        "tensorflow-datasets, such as train,test[:10%]. Labels are not needed.",
        only_with=("mode", ("embed", "audit")),
        resume="freely",
        stored=False,
    )
    embed_outputs: str = _EMBEDDINGS.setting(
        "features",
        f"Outputs of the network to write, a list of {', '.join(OUTPUTS)}. features is always "
        "among them: it is what search and audit compare. logits needs a linear head.",
        only_with=("mode", ("embed", "audit")),
        resume="freely",
        stored=False,
    )
    embed_shard_examples: int = _EMBEDDINGS.setting(
        50_000,
        "Images in a shard. Memory holds the outputs of one shard at a time.",
        only_with=("mode", ("embed", "audit")),
        at_least=1,
        reason="it counts images",
        at_most=bounds.MANY,
        limit_reason="no data set is larger",
        resume="freely",
        stored=False,
    )
    query: str | None = _EMBEDDINGS.setting(
        None,
        "Images to search for: image files or folders of images, comma-separated.",
        only_with=("mode", ("search",)),
        resume="freely",
        stored=False,
    )
    neighbours: int = _EMBEDDINGS.setting(
        10,
        "Number of nearest images. search lists as many for each query; audit takes the mean "
        "distance to as many, to find outliers.",
        only_with=("mode", ("search", "audit")),
        at_least=1,
        reason="it counts images",
        at_most=1000,
        limit_reason="more cannot be looked at",
        resume="freely",
        stored=False,
    )
    duplicate_cosine: float = _EMBEDDINGS.setting(
        0.0,
        "Cosine similarity from which audit counts two images as near-duplicates. 0 measures it "
        "with the weights: copies of 200 images are compressed as JPEG of quality 50, and the "
        "threshold is the cosine that 95% of the images have with their copies.",
        only_with=("mode", ("audit",)),
        at_least=0.1,
        at_most=1.0,
        zero_is_off=True,
        reason="it is a cosine; 0 measures it",
        resume="freely",
        stored=False,
    )

    @property
    def embed_output_names(self) -> tuple[str, ...]:
        """The outputs of the network to write, in the order of `OUTPUTS`.

        Raises:
            ArgumentError: if there is no such output.
        """
        names = [name.strip() for name in self.embed_outputs.split(",")]
        for name in names:
            if name not in OUTPUTS:
                raise errors.ArgumentError(
                    "embed_outputs",
                    self.embed_outputs,
                    f"names {name!r}{text.suggestion(name, OUTPUTS)}, which is not one of "
                    f"{', '.join(OUTPUTS)}; list some of these.",
                )
        return tuple(name for name in OUTPUTS if name in {*names, "features"})
