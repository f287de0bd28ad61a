"""Compression of trained networks: one stage per file, recipes, and the export to the deploy runtime."""

import os

if __name__ == "compression":
    # The root of a checkout is on sys.path, and since Python 3.14 the standard library has a package of this name.
    __path__ = [os.path.join(os.path.dirname(os.__file__), "compression")]
else:
    # ONNX Runtime for Linux reports sessions to Microsoft since version 1.32, unless this is set when it is imported.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

    from slimsearch.compression._layout import layout_for, set_layout
    from slimsearch.compression._network import Network
    from slimsearch.compression._recipe import PlainRecipe, Recipe, StageGroup
    from slimsearch.compression._replaced import SIGN_INPUT
    from slimsearch.compression._stage import AfterStep, LossTerm, Part, Stage, Training, TrainingStage, train_together
    from slimsearch.compression.elastic import analysis_file
    from slimsearch.compression.elastic.elastic_network import ElasticNetwork
    from slimsearch.compression.export.agreement import EXACT, QUANTIZED, exact_error, parity_error, without_rounding
    from slimsearch.compression.export.bit_packing import expand_integers
    from slimsearch.compression.export.c_source.compiled import CompiledNetwork, c_compiler
    from slimsearch.compression.export.c_source.source import memory_kib, write_c
    from slimsearch.compression.export.converted import (
        LAYER_OPTIONS,
        check_plan,
        convert,
        needs_extra,
        runtime_of,
        unsupported,
    )
    from slimsearch.compression.export.packing import pack, unpack
    from slimsearch.compression.export.preprocessing import embed_preprocessing
    from slimsearch.compression.export.sensitivity import LayerFiles
    from slimsearch.compression.export.to_onnx import export_onnx
    from slimsearch.compression.export.untrusted import onnxruntime_session, read_onnx, session_options
    from slimsearch.compression.quantization.plan import LearnedRange, Quantization
    from slimsearch.compression.quantization.rounding import rounding_error

    __all__ = [
        "EXACT", "LAYER_OPTIONS", "QUANTIZED", "SIGN_INPUT", "AfterStep", "CompiledNetwork",
        "ElasticNetwork", "LayerFiles", "LearnedRange", "LossTerm", "Network", "Part", "PlainRecipe", "Quantization",
        "Recipe", "Stage", "StageGroup", "Training", "TrainingStage", "analysis_file", "c_compiler",
        "check_plan", "convert", "embed_preprocessing", "exact_error", "expand_integers", "export_onnx", "layout_for",
        "memory_kib", "needs_extra", "onnxruntime_session", "pack", "parity_error", "read_onnx", "rounding_error",
        "runtime_of", "session_options", "set_layout", "train_together", "unpack", "unsupported", "without_rounding",
        "write_c",
    ]  # fmt: skip
