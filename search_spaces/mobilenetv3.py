"""MobileNetV3: the largest space of TuNAS."""

from __future__ import annotations

from nni.nas.hub import pytorch as hub
from nni.nas.hub.pytorch.proxylessnas import reset_parameters

from slimsearch.search_spaces._nni.layers import check_size, halvings, with_in_channels
from slimsearch.search_spaces._nni.nni_space import FromSample

# Of the stem and the eight stages; the first ones are removed first.
_STRIDES = (2, 1, 2, 2, 2, 1, 2, 1, 1)


class MobileNetV3(FromSample, hub.MobileNetV3Space):  # type: ignore[misc]
    """About 10^39 networks of inverted residuals: expansion and kernel size per block, depth and width per stage.

    Some stages have optional squeeze-and-excitation. Images of 224 pixels are halved five times. For smaller images,
    strides are removed, the stem's first, so that 4 pixels a side are left: 32 pixels are halved three times, 64 and 96
    four times. On 32x32 color images of ten classes the networks have about 190,000 to 37 million parameters.

    Source: TuNAS (Bender et al. 2020), after MobileNetV3 (Howard et al. 2019), as in NNI's hub. Difference: channels,
    classes and strides fit the data.
    """

    def __init__(self, in_channels: int = 3, num_classes: int = 10, image_size: int = 224) -> None:
        check_size("mobilenetv3", image_size)
        super().__init__(num_labels=num_classes, stride=_strides(image_size))
        if in_channels != 3:
            self.stem[0] = with_in_channels(self.stem[0], in_channels)
            reset_parameters(self.stem[0])


def _strides(image_size: int) -> tuple[int, ...]:
    removed = _STRIDES.count(2) - halvings(image_size, _STRIDES.count(2))
    return tuple(1 if s == 2 and _STRIDES[:i].count(2) < removed else s for i, s in enumerate(_STRIDES))
