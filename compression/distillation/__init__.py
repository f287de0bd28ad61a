"""Distillation: teachers from ONNX files, and the loss over features of several layers."""
