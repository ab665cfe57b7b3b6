"""How well an encoder transfers to other data sets (SimCLR, appendix B.8)."""

from __future__ import annotations

import dataclasses

from simclr_tf import text
from simclr_tf.config.metadata import Section

_ONLY = ("mode", ("transfer",))

_TRANSFER = Section("Transfer")


@dataclasses.dataclass(frozen=True)
class TransferSettings:
    """The data sets of a transfer, what the encoder is compared with, and the fine-tuning."""

    transfer_to: str | None = _TRANSFER.setting(
        None,
        "Data sets to transfer to, comma-separated: names of tensorflow-datasets, which are in "
        "--data_dir, or folders of images, whose paths contain a /. For example "
        "cifar10,oxford_flowers102,./my_images. Those with several labels per image, such as "
        "voc/2007, need --transfer_grid=none.",
        only_with=_ONLY,
        resume="freely",
    )
    baselines: str | None = _TRANSFER.setting(
        None,
        "Other runs or weights whose encoders are measured, too, comma-separated, such as a run "
        "with --objective=supervised. Each has the image size that it was trained with.",
        only_with=_ONLY,
        resume="freely",
    )
    transfer_grid: str = _TRANSFER.setting(
        "none",
        "Learning rates and weight decays that fine-tuning tries. none: no fine-tuning, only a "
        "linear classifier. paper: those of SimCLR's appendix B.8, 57 runs of 20,000 steps for "
        "each network and data set, and 57 of 40,000 steps for random initial weights. small: 7 "
        "short runs each.",
        choices=("none", "small", "paper"),
        only_with=_ONLY,
        resume="freely",
    )

    @property
    def transfer_names(self) -> list[str]:
        """The names in `transfer_to`."""
        return text.listed(self.transfer_to)

    @property
    def baseline_names(self) -> list[str]:
        """The names in `baselines`."""
        return text.listed(self.baselines)
