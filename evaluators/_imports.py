"""Import of all libraries that train, export and measure networks, for the start of worker processes; takes seconds."""

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
