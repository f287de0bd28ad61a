"""The cells of NAS-Bench-201."""

from __future__ import annotations

from nni.nas.hub import pytorch as hub
from torch import nn

from slimsearch.search_spaces._nni.from_sample import FromSample
from slimsearch.search_spaces._nni.hub import check_size, for_channels, shrinking


class NasBench201(FromSample, hub.NasBench201):  # type: ignore[misc]
    """15,625 networks: one of five operations on each of the six edges of a cell, which is repeated 15 times.

    Three stages of five cells with 16, 32 and 64 channels, the image halved before the second and the third. Images
    from 64 pixels on are max-pooled after the stem, to 32 to 63 pixels; all others are seen as they are. On 32x32
    colour images of ten classes they are the networks of the benchmark, of 73,306 to 1,531,546 parameters.

    Source: NAS-Bench-201 (Dong and Yang 2020), as in NNI's hub. What differs: channels and classes are those of the
    data, and where the side of a feature map is odd, the shortcut's pooling rounds up as its convolution does.
    """

    def __init__(self, in_channels: int = 3, num_classes: int = 10, image_size: int = 32) -> None:
        check_size("nasbench201", image_size)
        super().__init__(num_labels=num_classes)
        if in_channels != 3:
            self.stem[0] = for_channels(self.stem[0], in_channels)
        self.stem.extend(shrinking(image_size))
        for layer in self.modules():
            # A shortcut's pooling halves an even side either way.
            if isinstance(layer, nn.AvgPool2d) and layer.stride == 2:
                layer.ceil_mode = image_size % 4 != 0
