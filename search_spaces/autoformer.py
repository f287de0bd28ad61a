"""The vision transformers of AutoFormer."""

from __future__ import annotations

from nni.nas.hub import pytorch as hub

from slimsearch.search_spaces._nni.from_sample import FromSample
from slimsearch.search_spaces._nni.hub import check_size

# Patches a side that an image is cut into at least, and the side of the largest patch.
_PATCHES, _LARGEST = 7, 16


class AutoFormer(FromSample, hub.AutoFormer):  # type: ignore[misc]
    """About 10^11 vision transformers: embedding and depth, and each layer's heads and ratio of its hidden layer.

    The "tiny" space, of 12 to 14 layers. An image is cut into patches of 16 pixels, or of 8, 4, 2 or 1 where that
    would leave fewer than 7 patches a side: 4 pixels for images of 28 and 32, 8 for those of 64 and 96. For ten classes
    the networks have about 4.5 to 10 million parameters.

    Source: AutoFormer (Chen et al. 2021), as in NNI's hub. What differs: channels, classes and patches are those of the
    data, and no path is dropped in training.
    """

    def __init__(self, in_channels: int = 3, num_classes: int = 10, image_size: int = 224) -> None:
        check_size("autoformer", image_size)
        patch = _LARGEST
        while image_size // patch < _PATCHES:
            patch //= 2
        super().__init__(
            img_size=image_size, patch_size=patch, in_channels=in_channels, num_labels=num_classes, drop_path_rate=0.0
        )
