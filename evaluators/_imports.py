"""What a process imports that trains, exports and measures networks, in one go; it takes seconds."""

import onnx
import onnxruntime
import onnxruntime.quantization
import safetensors.torch
import torch
import torch.utils.flop_counter
import torch_pruning

from slimsearch.search_spaces import import_nni

__all__ = ["onnx", "onnxruntime", "safetensors", "torch", "torch_pruning"]

import_nni()
