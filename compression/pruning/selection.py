"""Selection of the channels to remove for a target, at once or gradually."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from slimsearch.compression._network import Network, changed_layers
from slimsearch.compression._plain_module import copy_module
from slimsearch.compression._stage import Training
from slimsearch.compression._weights import weights
from slimsearch.compression.pruning.channels import Channels
from slimsearch.compression.pruning.importances import Importance
from slimsearch.compression.pruning.pruning_stage import GradualCut
from slimsearch.compression.pruning.silencing import Cut, end_silence, silence, zero_masks
from slimsearch.errors import SlimsearchError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from slimsearch.compression.prune import Prune

TARGETS = ("sparsity", "params", "macs", "latency_ms")
THIRDS = ("early", "middle", "late")
_DEFAULT_SPARSITY = 0.3
_SEARCH_STEPS = 14  # of the bisection for a target: to within 1 in 16,000 of the ratio


class Selection:
    """Selects the channels to remove from a network by the options of a stage."""

    def __init__(
        self, stage: Prune, channels: Channels, importance: Importance, network: Network, training: Training
    ) -> None:
        self.stage, self.channels, self.importance = stage, channels, importance
        self._network, self._training = network, training
        given = [getattr(stage, name) for name in THIRDS]
        thirds = [share or 0.0 for share in given] if any(share is not None for share in given) else None
        self.ratio = max(thirds) if thirds is not None else stage.sparsity or _DEFAULT_SPARSITY
        has_target = thirds is not None or any(getattr(stage, name) is not None for name in TARGETS[1:])
        self.asked = None if has_target else self.ratio
        # Of each third of the layers, relative to `ratio`.
        self._shares = [1.0] if thirds is None else [share / self.ratio for share in thirds]
        self.already: Sequence[Cut] = ()  # cuts that were made before and stay

    def choose(self, scores: Mapping[str, Tensor], ratio: float) -> list[Cut]:
        """The cuts at a ratio.

        Raises:
            SlimsearchError: the importance finds no channel to rank.
        """
        stage = self.stage
        together = stage.scope == "network"
        return self.channels.choose(
            self.importance, scores, [ratio * share for share in self._shares], together=together,
            by_cost=together and stage.params is not None, first=self.already,
        )  # fmt: skip

    def final(self, scores: Mapping[str, Tensor]) -> list[Cut]:
        """The cuts that reach the target.

        Raises:
            SlimsearchError: the target cannot be reached, or no channel can be removed.
        """
        name = next((n for n in TARGETS[1:] if getattr(self.stage, n) is not None), None)
        if name is not None:
            return self._reaching(name, float(getattr(self.stage, name)), scores)
        cuts, _ = self._at(scores, self.ratio)
        if not cuts:
            raise SlimsearchError(f"sparsity {self.ratio:g} removes no channel: increase it, or lower round_to")
        return cuts

    def _reaching(self, name: str, target: float, scores: Mapping[str, Tensor]) -> list[Cut]:
        """The cuts of the smallest ratio whose network costs no more than `target`."""
        cost: Callable[[Network], float] = {
            "params": lambda network: network.params,
            "macs": lambda network: network.macs(self._training.calibration[:1]),
            "latency_ms": self._training.latency_ms,
        }[name]
        if cost(self._network) <= target:
            raise SlimsearchError(f"the network has no more than {target:g} {name} as it is: nothing to prune")
        low, high, found, reached = 0.0, 1.0, None, 0.0
        for _ in range(_SEARCH_STEPS if name != "latency_ms" else _SEARCH_STEPS // 2):
            self.ratio = (low + high) / 2
            cuts, network = self._at(scores, self.ratio)
            reached = cost(network)
            if reached <= target:
                high, found = self.ratio, cuts
            else:
                low = self.ratio
        if found is None:
            raise SlimsearchError(f"pruning cannot reach {name} {target:g}: the narrowest network has {reached:g}")
        self.ratio = high
        return found

    def _at(self, scores: Mapping[str, Tensor], ratio: float) -> tuple[list[Cut], Network]:
        """The cuts at a ratio, and the network without them; groups that fail are excluded."""
        while True:
            cuts = self.choose(scores, ratio)
            module = self._network.copy_module()
            try:
                self.channels.cut(module, cuts)
            except SlimsearchError:
                self.channels.exclude_failing(cuts)
            else:
                return cuts, Network(module)

    def remove(self, network: Network, cuts: list[Cut]) -> Network:
        """`network` without the channels of `cuts`."""
        module = network.copy_module()
        try:
            removed = self.channels.cut(module, cuts)
        except SlimsearchError:  # only with the trained weights: what can be cut is cut, and the training is not lost
            module = network.copy_module()
            removed = self.channels.cut(module, self.channels.exclude_failing(cuts, module))
        return self.described(module, network, removed)

    def described(self, module: nn.Module, network: Network, removed: Mapping[str, tuple[int, ...]]) -> Network:
        """`module`, which is that of `network` without the `removed` output channels of layers, as a network."""
        share = 1 - self.channels.count(module) / self.channels.count(self._network.module)
        pruned = {"share": round(share, 4), **({} if self.asked is None else {"asked": self.asked})}
        self.channels.report(pruned)
        plan = network.quantization
        for layer, gone in removed.items():
            plan = plan.without_channels(layer, gone) if plan is not None else None
        return Network(module, {**changed_layers(network.structure, module), "pruned": pruned}, plan)


class GradualChannels(GradualCut):
    """Sets channels to zero during the training, and removes them after the last of its cuts."""

    def __init__(self, selection: Selection) -> None:
        super().__init__(selection.stage, selection.importance)
        self._selection = selection
        self._cuts: list[Cut] = []
        self._module: nn.Module | None = None
        self._apply: Callable[[], None] | None = None
        self._ratio: float | None = None
        self._last = False  # whether the last cut has been made
        self._removed: dict[str, tuple[int, ...]] | None = None  # output channels, once they are removed

    def attach(self, module: nn.Module) -> None:
        self._module = module

    def cut(self, module: nn.Module, share: float, last: bool) -> None:
        scores = self.importance.scores(weights(module))
        self._selection.already = self._cuts
        if self._ratio is None:
            self._selection.final(scores)  # determines the ratio for the target
            self._ratio = self._selection.ratio
        self._cuts = self._selection.final(scores) if last else self._selection.choose(scores, self._ratio * share)
        self._apply, self._last = None, last

    def hold(self, module: nn.Module) -> None:
        if not self._cuts or self._removed is not None:
            return
        if self._apply is None:
            self._apply = silence(module, self._cuts)
        self._apply()

    def finish(self, network: Network) -> Network:
        """`network` without the channels that are zero."""
        if self._removed is not None:
            return self._selection.described(network.copy_module(), network, self._removed)
        return self._selection.remove(network, self._cuts)

    def has_finished(self) -> bool:
        return self._last

    def smaller(self, module: nn.Module) -> tuple[nn.Module, Mapping[str, Tensor]] | None:
        self._last = False
        found = copy_module(module).cpu()
        end_silence(found)
        masks = zero_masks(found, self._cuts)
        try:
            self._removed = self._selection.channels.cut(found, self._cuts)
        except SlimsearchError:  # only with the trained weights: what can be cut is cut at the end
            return None
        self._module, self._apply = found, None
        return found, masks

    def state(self) -> dict[str, Any]:
        cuts = [[c.layer, c.output, list(c.channels), dict(c.silenced), dict(c.unread), c.head] for c in self._cuts]
        return {**super().state(), "cuts": cuts, "ratio": self._ratio, "removed": self._removed is not None}

    def restore(self, state: Mapping[str, Any]) -> None:
        super().restore(state)
        self._ratio, self._apply = state["ratio"], None
        self._last, self._removed = state.get("removed", False), None
        self._cuts = [
            _cut(layer, output, channels, *named)
            for layer, output, channels, *named in state["cuts"]  # older states have fewer values
        ]
        if self._module is not None:
            self._apply = silence(self._module, self._cuts)


def _cut(
    layer: str, output: bool, channels: Sequence[int], silenced: Mapping[str, Sequence[int]],
    unread: Mapping[str, Sequence[int]] | None = None, head: bool = False,
) -> Cut:  # fmt: skip
    """A cut as its state has it."""
    written, read = ({name: tuple(own) for name, own in (one or {}).items()} for one in (silenced, unread))
    return Cut(layer, output, tuple(channels), written, read, head)
