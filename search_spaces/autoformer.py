"""AutoFormer: vision transformers."""

from __future__ import annotations

from nni.nas.hub import pytorch as hub

from slimsearch.search_spaces._nni.layers import check_size
from slimsearch.search_spaces._nni.nni_space import FromSample

_MIN_PATCHES, _MAX_PATCH = 7, 16  # patches a side, and pixels a side of a patch


class AutoFormer(FromSample, hub.AutoFormer):  # type: ignore[misc]
    """About 10^11 vision transformers: embedding width and depth; heads and MLP ratio of each layer.

    The "tiny" space, with 12 to 14 layers. Patches have 16 pixels a side, or the next power of two that gives at least
    7 patches a side: 4 pixels for images of 28 and 32, 8 for 64 and 96. With ten classes the networks have about 4.5
    to 10 million parameters.

    Source: AutoFormer (Chen et al. 2021), as in NNI's hub. Differences: channels, classes and patches fit the data, and
    there is no drop path.
    """

    def __init__(self, in_channels: int = 3, num_classes: int = 10, image_size: int = 224) -> None:
        check_size("autoformer", image_size)
        patch = _MAX_PATCH
        while image_size // patch < _MIN_PATCHES:
            patch //= 2
        super().__init__(
            img_size=image_size, patch_size=patch, in_channels=in_channels, num_labels=num_classes, drop_path_rate=0.0
        )
