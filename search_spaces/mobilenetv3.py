"""The space around MobileNetV3 that TuNAS searched."""

from __future__ import annotations

from nni.nas.hub import pytorch as hub
from nni.nas.hub.pytorch.proxylessnas import reset_parameters

from slimsearch.search_spaces._nni.from_sample import FromSample
from slimsearch.search_spaces._nni.hub import check_size, for_channels, halvings

# Of the stem and the eight parts behind it. Those that are dropped first come first.
_STRIDES = (2, 1, 2, 2, 2, 1, 2, 1, 1)


class MobileNetV3(FromSample, hub.MobileNetV3Space):  # type: ignore[misc]
    """About 10^39 networks of inverted residuals: each block's expansion and kernel, each stage's depth and width.

    Blocks of some stages may have squeeze-and-excitation. An image of 224 pixels is halved five times; of a smaller
    one the strides are dropped, the stem's first, until 4 pixels a side are left: 32 pixels are halved three times, 64
    and 96 four times. On 32x32 colour images of ten classes the networks have about 190,000 to 37 million parameters.

    Source: the largest space of TuNAS (Bender et al. 2020), after MobileNetV3 (Howard et al. 2019), as in NNI's hub.
    What differs: channels, classes and strides are those of the data.
    """

    def __init__(self, in_channels: int = 3, num_classes: int = 10, image_size: int = 224) -> None:
        check_size("mobilenetv3", image_size)
        super().__init__(num_labels=num_classes, stride=_strides(image_size))
        if in_channels != 3:
            self.stem[0] = for_channels(self.stem[0], in_channels)
            reset_parameters(self.stem[0])


def _strides(image_size: int) -> tuple[int, ...]:
    dropped = _STRIDES.count(2) - halvings(image_size, _STRIDES.count(2))
    return tuple(1 if s == 2 and _STRIDES[:i].count(2) < dropped else s for i, s in enumerate(_STRIDES))
