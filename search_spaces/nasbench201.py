"""NAS-Bench-201: cells of six edges."""

from __future__ import annotations

from nni.nas.hub import pytorch as hub
from torch import nn

from slimsearch.search_spaces._nni.layers import check_size, stem_pooling, with_in_channels
from slimsearch.search_spaces._nni.nni_space import FromSample


class NasBench201(FromSample, hub.NasBench201):  # type: ignore[misc]
    """15,625 networks: one of five operations on each of the six edges of a cell, which is repeated 15 times.

    There are three stages of five cells with 16, 32 and 64 channels; the image is halved before the second and the
    third. Images from 64 pixels are max-pooled behind the stem, to 32 to 63 pixels. On 32x32 color images of ten
    classes these are the networks of the benchmark, with 73,306 to 1,531,546 parameters.

    Source: NAS-Bench-201 (Dong and Yang 2020), as in NNI's hub. Differences: channels and classes fit the data, and for
    feature maps with an odd side, the pooling of the shortcut rounds up as its convolution does.
    """

    def __init__(self, in_channels: int = 3, num_classes: int = 10, image_size: int = 32) -> None:
        check_size("nasbench201", image_size)
        super().__init__(num_labels=num_classes)
        if in_channels != 3:
            self.stem[0] = with_in_channels(self.stem[0], in_channels)
        self.stem.extend(stem_pooling(image_size))
        for layer in self.modules():
            # For even sides, both ways of rounding are equal.
            if isinstance(layer, nn.AvgPool2d) and layer.stride == 2:
                layer.ceil_mode = image_size % 4 != 0
