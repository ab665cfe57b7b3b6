"""A SimCLR training step in PyTorch, for comparison: see gpu_step.py."""

from __future__ import annotations

import torch
from torch import nn
import torchvision

_MOMENTUM, _WEIGHT_DECAY, _TRUST, _TEMPERATURE = 0.9, 1e-4, 0.001, 0.1


class Step:
    """One step of pretraining: ResNet, projection head, NT-Xent, online linear head, LARS.

    The settings are those of `step_hlo.py` without other flags: a head of three layers, of which
    the last has `projection` outputs, and weight decay and trust ratio for all but biases, batch
    norm and the linear head.
    """

    def __init__(
        self,
        images: int,
        *,
        side: int,
        depth: int = 50,
        num_classes: int = 1000,
        bfloat16: bool = True,
        compiled: bool = True,
        device: str = "cuda",
    ) -> None:
        """Makes the network and a batch of random views.

        Args:
            images: b, the images of a step, of which there are two views each.
            side: height and width of a view.
            depth: 18, 34, 50, 101 or 152.
            num_classes: c, of the linear head.
            bfloat16: whether the layers compute in bfloat16.
            compiled: whether `torch.compile` compiles the network.
            device: "cuda" or "cpu".
        """
        torch.manual_seed(0)
        self._device, self._bfloat16 = device, bfloat16
        self._encoder = getattr(torchvision.models, f"resnet{depth}")()
        width = self._encoder.fc.in_features
        self._encoder.fc = nn.Identity()
        self._head = nn.Sequential(
            *_layer(width, width), nn.ReLU(), *_layer(width, width), nn.ReLU(), *_layer(width, 128)
        )
        self._linear = nn.Linear(width, num_classes)
        for part in (self._encoder, self._head, self._linear):
            part.to(device, memory_format=torch.channels_last)
        self._groups = self._make_groups()
        self._forward = torch.compile(self._outputs) if compiled else self._outputs
        self.views = torch.rand(2 * images, 3, side, side, device=device)
        self.views = self.views.contiguous(memory_format=torch.channels_last)
        self.labels = torch.randint(num_classes, (images,), device=device).repeat(2)

    def __call__(self) -> torch.Tensor:
        """Runs a step, and returns the loss of the projections."""
        with torch.autocast(self._device, torch.bfloat16, enabled=self._bfloat16):
            projection, logits = self._forward(self.views)
        loss = nt_xent(projection.float())
        label_loss = nn.functional.cross_entropy(logits.float(), self.labels)
        (loss + label_loss).backward()
        self._update(learning_rate=0.3)
        return loss.detach()

    def _outputs(self, views: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self._encoder(views)
        return self._head(features), self._linear(features.detach())

    def _make_groups(self) -> list[tuple[list[torch.Tensor], list[torch.Tensor], bool]]:
        """Returns parameters, momentum buffers, and whether the trust ratio is for them."""
        body = [*self._encoder.parameters(), *self._head.parameters()]
        scaled = [parameter for parameter in body if parameter.ndim > 1]
        others = [parameter for parameter in body if parameter.ndim <= 1]
        others += self._linear.parameters()
        return [
            (scaled, [torch.zeros_like(parameter) for parameter in scaled], True),
            (others, [torch.zeros_like(parameter) for parameter in others], False),
        ]

    @torch.no_grad()
    def _update(self, learning_rate: float) -> None:
        """LARS, for all parameters of a group at once."""
        for parameters, buffers, scaled in self._groups:
            gradients = [parameter.grad for parameter in parameters]
            if scaled:
                gradients = torch._foreach_add(gradients, parameters, alpha=_WEIGHT_DECAY)
                norms = torch.stack(torch._foreach_norm(parameters))
                rates = _TRUST * norms / torch.stack(torch._foreach_norm(gradients))
                gradients = torch._foreach_mul(gradients, list(rates.unbind()))
            torch._foreach_mul_(buffers, _MOMENTUM)
            torch._foreach_add_(buffers, gradients, alpha=learning_rate)
            torch._foreach_sub_(parameters, buffers)
            for parameter in parameters:
                parameter.grad = None


def _layer(inputs: int, outputs: int) -> tuple[nn.Module, nn.Module]:
    return nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs)


def nt_xent(projection: torch.Tensor) -> torch.Tensor:
    """Returns the NT-Xent loss of two views, one after the other: SimCLR, equation 1.

    Args:
        projection: (2b, d), of which rows i and i + b are the views of an image.
    """
    normalized = nn.functional.normalize(projection)
    logits = normalized @ normalized.T / _TEMPERATURE
    count = len(logits)
    logits.fill_diagonal_(-torch.inf)
    positives = torch.arange(count, device=logits.device).roll(count // 2)
    return nn.functional.cross_entropy(logits, positives)
