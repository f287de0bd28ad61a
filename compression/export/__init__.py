"""Export: the ONNX file that is deployed, its int8 form, and packed weights."""
