"""The choices of an elastic network as a JSON file, since they can take minutes to find."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimsearch.compression._network import Network
from slimsearch.compression.elastic.elastic_network import COMPARED, ElasticDepth, ElasticNetwork, ElasticWidth
from slimsearch.compression.pruning.silencing import Cut
from slimsearch.errors import first_line
from slimsearch.files import write_json
from slimsearch.reading import read_json

if TYPE_CHECKING:
    from torch import Tensor

_log = logging.getLogger(__name__)

_VERSION = 2  # of the analysis: files of other versions are not read


def read_or_analyze(path: Path | None, network: Network, images: Tensor) -> ElasticNetwork:
    """`ElasticNetwork.of`, from the file if it is about this network and these images.

    Args:
        path: of the file, which may be missing; None: there is none.
        network: trained, and not quantized.
        images: (N, C, H, W) float32, real ones, normalized for the network.

    Raises:
        SlimsearchError: nothing can be left out of the network; the message has the reason.
    """
    if path is not None and path.is_file():
        try:
            found = read_json(path)
            if found["of"] == _identity(network, images[:COMPARED]):
                return _elastic(found, images[:COMPARED])
        except Exception as error:  # a damaged file fails in any way
            _log.warning("'%s' cannot be read, the network is analyzed again: %s", path, first_line(error))
    return ElasticNetwork.of(network, images)


def write(path: Path, elastic: ElasticNetwork, network: Network) -> None:
    """Write the file that `read_or_analyze` reads for the same network and images."""
    write_json(
        path,
        {
            "of": _identity(network, elastic.images),
            "widths": [
                {
                    "label": one.label, "layers": one.layers, "blocks": one.blocks,
                    "shares": [
                        [share, sizes, [None if cut is None else asdict(cut) for cut in one.cuts[share]]]
                        for share, sizes in one.widths.items()
                    ],
                }
                for one in elastic.widths
            ],
            "depths": [asdict(one) for one in elastic.depths],
            "whole": elastic.whole,
        },
    )  # fmt: skip


def _identity(network: Network, images: Tensor) -> str:
    digest = hashlib.sha256(str(_VERSION).encode())
    for name, tensor in (*network.module.state_dict().items(), ("images", images)):
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _elastic(found: Any, images: Tensor) -> ElasticNetwork:
    widths = tuple(
        ElasticWidth(
            one["label"], tuple(one["layers"]), tuple(one["blocks"]),
            {share: tuple(sizes) for share, sizes, _ in one["shares"]},
            {share: tuple(None if cut is None else _cut(cut) for cut in cuts) for share, _, cuts in one["shares"]},
        )
        for one in found["widths"]
    )  # fmt: skip
    depths = tuple(ElasticDepth(one["label"], tuple(one["blocks"]), tuple(one["numbers"])) for one in found["depths"])
    return ElasticNetwork(widths, depths, tuple(found["whole"]), images)


def _cut(plain: Any) -> Cut:
    silenced, unread = (
        {name: tuple(channels) for name, channels in plain[kind].items()} for kind in ("silenced", "unread")
    )
    return Cut(plain["layer"], plain["output"], tuple(plain["channels"]), silenced, unread, plain["head"])
