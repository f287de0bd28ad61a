"""ShuffleNet: the space of Single Path One-Shot."""

from __future__ import annotations

import torch
from nni.nas.hub import pytorch as hub
from nni.nas.hub.pytorch.shufflenet import ShuffleNetBlock
from torch import nn

from slimsearch.search_spaces._nni.layers import check_size, halvings, remove_strides, with_in_channels
from slimsearch.search_spaces._nni.nni_space import FromSample


class ShuffleNet(FromSample, hub.ShuffleNetSpace):  # type: ignore[misc]
    """4^20 networks, about 10^12: 20 ShuffleNetV2 blocks, each with a kernel of 3, 5 or 7, or of the Xception type.

    Images of 224 pixels are halved five times. For smaller images, strides are removed, the stem's first, so that 4
    pixels a side are left: 32 pixels are halved three times, 64 and 96 four times. On 32x32 color images of ten classes
    the networks have about 2.1 to 2.9 million parameters.

    Source: Single Path One-Shot (Guo et al. 2020), after ShuffleNetV2 (Ma et al. 2018), as in NNI's hub. Differences:
    channels, classes and strides fit the data, and channels are shuffled by slicing, with the same result, which export
    and pruning support.
    """

    def __init__(self, in_channels: int = 3, num_classes: int = 10, image_size: int = 224) -> None:
        check_size("shufflenet", image_size)
        super().__init__(num_labels=num_classes)
        if in_channels != 3:
            self.first_conv[0] = with_in_channels(self.first_conv[0], in_channels)
            nn.init.normal_(self.first_conv[0].weight, 0, 0.01)  # as the hub draws it
        for block in self.modules():
            if isinstance(block, ShuffleNetBlock):
                block._channel_shuffle = shuffle_channels
        first_blocks = [0, *(sum(self.stage_repeats[:stage]) for stage in (1, 2, 3))]
        strided = [self.first_conv, *(self.features[block] for block in first_blocks)]
        for module in strided[: len(strided) - halvings(image_size, len(strided))]:
            remove_strides(module)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) float32 -> (N, num_classes) logits."""
        x = self.conv_last(self.features(self.first_conv(x)))
        x = torch.flatten(self.globalpool(x), 1)  # the hub uses a constant width, which pruning changes
        return self.classifier(self.dropout(x))  # type: ignore[no-any-return]


def shuffle_channels(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, C, H, W) -> the even and the odd channels, (N, C / 2, H, W) each."""
    return x[:, 0::2], x[:, 1::2]
