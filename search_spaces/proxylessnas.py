"""The space of ProxylessNAS."""

from __future__ import annotations

from nni.nas.hub import pytorch as hub
from nni.nas.hub.pytorch.proxylessnas import reset_parameters

from slimsearch.search_spaces._nni.from_sample import FromSample
from slimsearch.search_spaces._nni.hub import check_size, for_channels, halvings, unstride


class ProxylessNAS(FromSample, hub.ProxylessNAS):  # type: ignore[misc]
    """About 10^19 networks of inverted residuals: each block's kernel and expansion, and the depths of five stages.

    An image of 224 pixels is halved five times; of a smaller one the strides are dropped, the stem's first, until 4
    pixels a side are left: 32 pixels are halved three times, 64 and 96 four times. On 32x32 colour images of ten
    classes the networks have about 0.9 to 3.9 million parameters.

    Source: ProxylessNAS (Cai et al. 2019), as in NNI's hub. What differs: channels, classes and strides are those of
    the data.
    """

    def __init__(self, in_channels: int = 3, num_classes: int = 10, image_size: int = 224) -> None:
        check_size("proxylessnas", image_size)
        super().__init__(num_labels=num_classes)
        if in_channels != 3:
            self.stem[0] = for_channels(self.stem[0], in_channels)
            reset_parameters(self.stem[0], bn_eps=self.bn_eps, bn_momentum=self.bn_momentum)
        # The stem, and the first blocks of the stages that halve the image.
        strided = [self.stem, *(self.blocks[stage] for stage in (1, 2, 3, 5))]
        for part in strided[: len(strided) - halvings(image_size, len(strided))]:
            unstride(part)
