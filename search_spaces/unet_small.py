"""Small U-Nets, for masks of images."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn


class UnetSmall(nn.Module):
    """288 networks: an encoder and a decoder with shortcuts between maps of equal size.

    Source: U-Net (Ronneberger et al. 2015). Differences: few channels, batch normalization, padded convolutions,
    depthwise separable ones (Howard et al. 2017) as a choice, and maps that are enlarged by a transposed convolution or
    by repeating pixels.
    """

    def __init__(
        self,
        in_channels: int,
        input_shape: tuple[int, ...],
        num_classes: int,
        width: Literal[4, 8, 12, 16] = 8,
        levels: Literal[1, 2, 3] = 2,
        growth: Literal[1, 2] = 2,
        block: Literal["plain", "separable", "double"] = "plain",
        up: Literal["transposed", "nearest"] = "nearest",
        joined: Literal["concatenated", "added"] = "concatenated",
    ) -> None:
        super().__init__()
        widths = [width * growth**level for level in range(levels + 1)]
        self.concatenated = joined == "concatenated"
        self.first = _block(block, in_channels, widths[0])
        self.down = nn.ModuleList(_block(block, widths[level], widths[level + 1]) for level in range(levels))
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(widths[level + 1], widths[level], 2, stride=2)
            if up == "transposed"
            else nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(widths[level + 1], widths[level], 1))
            for level in reversed(range(levels))
        )
        self.merge = nn.ModuleList(
            _block(block, widths[level] * (2 if self.concatenated else 1), widths[level])
            for level in reversed(range(levels))
        )
        self.classifier = nn.Conv2d(widths[0], num_classes, 1)
        # Sides are padded to a multiple of that of the smallest map.
        height, width_of_image = input_shape[-2:]
        unit = 2**levels
        self.padding = (0, -width_of_image % unit, 0, -height % unit)
        self.size = (height, width_of_image)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) float32 -> (N, num_classes, H, W) logits."""
        padded = any(self.padding)
        maps = [self.first(F.pad(x, self.padding) if padded else x)]
        for block in self.down:
            maps.append(block(F.max_pool2d(maps[-1], 2)))
        x = maps.pop()
        for enlarge, merge in zip(self.up, self.merge, strict=True):
            x, other = enlarge(x), maps.pop()
            x = merge(torch.cat([x, other], dim=1) if self.concatenated else x + other)
        x = self.classifier(x)
        return x[:, :, : self.size[0], : self.size[1]] if padded else x


def _block(kind: str, inputs: int, outputs: int) -> nn.Sequential:
    if kind == "separable":
        return nn.Sequential(*_convolution(inputs, inputs, 3, inputs), *_convolution(inputs, outputs, 1))
    layers = [*_convolution(inputs, outputs, 3)]
    return nn.Sequential(*layers, *_convolution(outputs, outputs, 3)) if kind == "double" else nn.Sequential(*layers)


def _convolution(inputs: int, outputs: int, kernel: int, groups: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]
