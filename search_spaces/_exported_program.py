"""Programs of torch.export as modules whose convolutions, linear layers and norms are layers again."""

from __future__ import annotations

import operator
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimsearch.errors import SlimsearchError, first_line

if TYPE_CHECKING:
    from torch import nn
    from torch.fx import Node

_GUARDS = "_guards_fn"  # checks the shapes of inputs


def read_program(path: str) -> nn.Module:
    """The module of a ``.pt2`` file, exported in evaluation mode with a variable batch size.

    A program calls functions with its weights. Convolutions, linear layers and batch and layer norms become layers,
    so that they can be pruned, quantized and trained; all else stays as it is. As PyTorch warns, a ``.pt2`` file can
    run code when it is loaded.

    Raises:
        SlimsearchError: the file cannot be loaded, or the program was exported in training mode.
    """
    import torch

    try:
        program = torch.export.load(path)
        module = program.module()
    except Exception as error:  # torch.export raises exceptions of many types
        raise SlimsearchError(f"cannot load the program '{path}': {first_line(error)}") from error
    if not isinstance(module, torch.fx.GraphModule):
        raise SlimsearchError(f"cannot load the program '{path}': it is no graph")
    for node in list(module.graph.nodes):
        if node.op == "call_module" and node.target == _GUARDS:
            module.graph.erase_node(node)
        else:
            _restore(module, node, Path(path).name)
    module.graph.eliminate_dead_code()
    return torch.fx.GraphModule(module, module.graph)  # the program's own cannot be trained


def _restore(module: Any, node: Node, file: str) -> None:
    """Replace a function of weights by a layer."""
    import torch

    aten = torch.ops.aten
    kinds: dict[Any, Callable[[Any, dict[str, Any]], nn.Module]] = {
        aten.conv1d.default: _convolution, aten.conv2d.default: _convolution, aten.conv2d.padding: _convolution,
        aten.linear.default: _linear, aten.batch_norm.default: _batch_norm, aten.layer_norm.default: _layer_norm,
    }  # fmt: skip
    make = kinds.get(node.target) if node.op == "call_function" else None
    if make is None:
        return
    values = dict(zip((one.name for one in node.target._schema.arguments), node.args, strict=False)) | node.kwargs  # type: ignore[union-attr]
    sources = {
        name: str(value.target) for name, value in values.items()
        if isinstance(value, torch.fx.Node) and value.op == "get_attr"
    }  # fmt: skip
    image = node.args[0]
    if "weight" not in sources or (isinstance(image, torch.fx.Node) and image.op == "get_attr"):
        return  # a function of computed weights
    if values.get("training"):
        raise SlimsearchError(f"'{file}' was exported in training mode: export the model after model.eval()")
    tensors = {name: operator.attrgetter(source)(module) for name, source in sources.items()}
    layer = make(tensors, values)
    with torch.no_grad():
        for name, tensor in tensors.items():
            getattr(layer, name).copy_(tensor)
    name = sources["weight"].rpartition(".")[0] or node.name
    if any(one.op == "call_module" and one.target == name for one in module.graph.nodes):
        name = f"{name}_{node.name}"  # the weights are used twice
    module.add_submodule(name, layer.eval())
    with module.graph.inserting_before(node):
        node.replace_all_uses_with(module.graph.call_module(name, (image,)))
    module.graph.erase_node(node)


def _convolution(tensors: dict[str, Any], values: dict[str, Any]) -> nn.Module:
    from torch import nn

    weight, groups = tensors["weight"], values.get("groups", 1)
    kind = nn.Conv1d if weight.ndim == 3 else nn.Conv2d
    return kind(
        weight.shape[1] * groups, weight.shape[0], tuple(weight.shape[2:]), stride=_pair(values.get("stride", 1)),
        padding=_pair(values.get("padding", 0)), dilation=_pair(values.get("dilation", 1)), groups=groups,
        bias="bias" in tensors,
    )  # fmt: skip


def _pair(value: Any) -> Any:
    return tuple(value) if isinstance(value, list | tuple) else value


def _linear(tensors: dict[str, Any], values: dict[str, Any]) -> nn.Module:
    from torch import nn

    return nn.Linear(tensors["weight"].shape[1], tensors["weight"].shape[0], bias="bias" in tensors)


def _batch_norm(tensors: dict[str, Any], values: dict[str, Any]) -> nn.Module:
    from torch import nn

    return nn.BatchNorm2d(len(tensors["weight"]), eps=values["eps"], momentum=values["momentum"])


def _layer_norm(tensors: dict[str, Any], values: dict[str, Any]) -> nn.Module:
    from torch import nn

    return nn.LayerNorm(
        tuple(values["normalized_shape"]), eps=values.get("eps", 1e-5), bias=tensors.get("bias") is not None
    )
