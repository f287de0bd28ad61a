"""ProxylessNAS: inverted residuals."""

from __future__ import annotations

from nni.nas.hub import pytorch as hub
from nni.nas.hub.pytorch.proxylessnas import reset_parameters

from slimsearch.search_spaces._nni.layers import check_size, halvings, remove_strides, with_in_channels
from slimsearch.search_spaces._nni.nni_space import FromSample


class ProxylessNAS(FromSample, hub.ProxylessNAS):  # type: ignore[misc]
    """About 10^19 networks of inverted residuals: kernel size and expansion per block, and the depths of five stages.

    Images of 224 pixels are halved five times. For smaller images, strides are removed, the stem's first, so that 4
    pixels a side are left: 32 pixels are halved three times, 64 and 96 four times. On 32x32 color images of ten classes
    the networks have about 0.9 to 3.9 million parameters.

    Source: ProxylessNAS (Cai et al. 2019), as in NNI's hub. Difference: channels, classes and strides fit the data.
    """

    def __init__(self, in_channels: int = 3, num_classes: int = 10, image_size: int = 224) -> None:
        check_size("proxylessnas", image_size)
        super().__init__(num_labels=num_classes)
        if in_channels != 3:
            self.stem[0] = with_in_channels(self.stem[0], in_channels)
            reset_parameters(self.stem[0], bn_eps=self.bn_eps, bn_momentum=self.bn_momentum)
        # The stem, and the first blocks of the stages that halve the image.
        strided = [self.stem, *(self.blocks[stage] for stage in (1, 2, 3, 5))]
        for module in strided[: len(strided) - halvings(image_size, len(strided))]:
            remove_strides(module)
