"""Imports all libraries that train, export and measure networks; takes seconds. For the start of worker processes."""

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
