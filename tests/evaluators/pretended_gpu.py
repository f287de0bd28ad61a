"""A device called "cuda" that computes on the CPU, and refuses to mix its tensors with those of the CPU.

With it, tests of a machine without a GPU find tensors that were left on the wrong device. It says nothing of a GPU's
kernels, number formats and speed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only

_CUDA = torch.device("cuda", 0)
_BETWEEN = {"aten::_to_copy", "aten::copy_", "aten::set_.source_Tensor"}
_MADE_BELOW = {"aten::_fake_quantize_per_tensor_affine_cachemask_tensor_qparams"}  # a tensor of their own
_INDEXING = {"aten::index.Tensor", "aten::index_put_", "aten::index_put", "aten::_unsafe_index_put"}


class OnGpu(torch.Tensor):
    """A tensor of the pretended GPU; its numbers are in a tensor of the CPU."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> OnGpu:
        made: OnGpu = torch.Tensor._make_wrapper_subclass(
            cls, inner.size(), strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype,
            requires_grad=inner.requires_grad,
        )  # fmt: skip
        made.inner = inner
        return made

    def __init__(self, inner: torch.Tensor) -> None: ...

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return _CUDA

    @property
    def is_cuda(self) -> bool:  # type: ignore[override]
        return True

    @property
    def is_cpu(self) -> bool:  # type: ignore[override]
        return False

    def to(self, *args: Any, **kwargs: Any) -> Any:
        device, rest = _split(args, kwargs)
        if device is None or _is_gpu(device):
            return torch.Tensor.to(self, **rest) if rest else self
        return _Back.apply(self).to(**rest)  # type: ignore[no-untyped-call]

    def cpu(self) -> torch.Tensor:
        return self.to("cpu")  # type: ignore[no-any-return]

    def cuda(self, *_: Any, **__: Any) -> OnGpu:
        return self

    def numpy(self) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu()")

    def tolist(self) -> Any:
        return self.inner.tolist()

    def __repr__(self) -> str:
        return f"OnGpu({self.inner!r})"


class _There(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor) -> OnGpu:
        return OnGpu(tensor.detach().clone())

    @staticmethod
    def backward(ctx: Any, gradient: OnGpu) -> torch.Tensor:  # type: ignore[override]
        return gradient.inner


class _Back(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: OnGpu) -> torch.Tensor:
        return tensor.inner.detach().clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return OnGpu(gradient)


def _is_gpu(device: Any) -> bool:
    return isinstance(device, str | torch.device) and str(device).partition(":")[0] == "cuda"


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    name = func._schema.name + ("." + func._schema.overload_name if func._schema.overload_name else "")
    flat, _ = tree_flatten((args, kwargs))
    tensors = [one for one in flat if isinstance(one, torch.Tensor)]
    there = any(isinstance(one, OnGpu) for one in tensors)
    plain = [one for one in tensors if not isinstance(one, OnGpu)]
    if there and name not in _BETWEEN | _MADE_BELOW:
        checked = tensors[:1] if name in _INDEXING else tensors  # indices may be on the CPU
        wrong = [one for one in plain if one.ndim > 0 and any(one is other for other in checked)]
        if wrong or (name in _INDEXING and not isinstance(args[0], OnGpu)):
            raise RuntimeError(
                f"Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu: {name}"
            )
    args, kwargs = tree_map_only(OnGpu, lambda one: one.inner, (args, kwargs))
    found = func(*args, **kwargs)
    if not there:
        return found
    given = {id(one.inner): one for one in tensors if isinstance(one, OnGpu)}  # those that were changed in place
    return tree_map_only(torch.Tensor, lambda one: given[id(one)] if id(one) in given else OnGpu(one), found)


class _Functions(TorchFunctionMode):
    """Catches devices among the arguments of functions, which a PyTorch without CUDA refuses."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch.Tensor.to, torch.Tensor.cuda):
            tensor, *rest = args
            if isinstance(tensor, OnGpu):
                return OnGpu.to(tensor, *rest, **kwargs)
            device, options = _split(rest, kwargs)
            if func is torch.Tensor.cuda or _is_gpu(device):
                return _There.apply(tensor.to(**options) if options else tensor)  # type: ignore[no-untyped-call]
        if func is torch.nn.functional.one_hot and isinstance(args[0], OnGpu):  # makes a tensor of its own
            return OnGpu(func(args[0].inner, *args[1:], **kwargs))
        if _is_gpu(kwargs.get("device")):
            kwargs["device"] = "cpu"
            return OnGpu(func(*args, **kwargs))
        return func(*args, **kwargs)


def _split(args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The device among the arguments of ``Tensor.to``, and the other ones that matter."""
    values = [*args, *kwargs.values()]
    device = next((one for one in values if isinstance(one, str | torch.device)), None)
    device = next((one.device for one in values if isinstance(one, torch.Tensor)), device)
    kinds = {"dtype": torch.dtype, "memory_format": torch.memory_format}
    return device, {name: one for name, kind in kinds.items() for one in values if isinstance(one, kind)}


class _Operators(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


@contextlib.contextmanager
def pretended_gpu(free: int = 2**40) -> Iterator[None]:
    """A context in which `torch.cuda` finds one GPU with `free` bytes of memory."""
    state = [torch.zeros(8, dtype=torch.uint8)]
    replaced = {
        "_lazy_init": lambda: None, "is_available": lambda: True, "is_initialized": lambda: True,
        "mem_get_info": lambda device=None: (free, free), "empty_cache": lambda: None,
        "get_rng_state": lambda device="cuda": state[0], "set_rng_state": lambda new, device="cuda": None,
        "manual_seed_all": lambda seed: None, "manual_seed": lambda seed: None, "device_count": lambda: 1,
        "current_device": lambda: 0, "is_bf16_supported": lambda including_emulation=True: False,
    }  # fmt: skip
    with contextlib.ExitStack() as stack:
        for name, value in replaced.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, value))
        before = torch.__future__.get_overwrite_module_params_on_conversion()
        stack.callback(torch.__future__.set_overwrite_module_params_on_conversion, before)
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        stack.enter_context(_Functions())
        stack.enter_context(_Operators())
        yield
