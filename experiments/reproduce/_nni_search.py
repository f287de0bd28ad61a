"""NNI's hello-NAS tutorial, made with NNI itself: what our search is compared with."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import nn

from experiments.reproduce import _tutorial
from slimsearch.evaluators.datasets import Dataset


def hello_nas(data: Dataset, seed: int, trials: int = 4, epochs: int = 3) -> dict[str, Any]:
    """Random search over `slimsearch.search_spaces.mnist_cnn`, each candidate trained in full, one after the other.

    Source: the tutorial "Hello, NAS!" of NNI 3.0. What differs: its strategy and evaluator run on NNI's sequential
    engine, in this process, where the tutorial's ``NasExperiment`` starts a web server and a process a trial (6 s
    each) and writes into the user's home.

    Returns:
        JSON: accuracies are fractions of the test split, times seconds; ``best`` is chosen by test accuracy, as the
        tutorial does.
    """
    with torch.random.fork_rng(devices=[]), _tutorial.quiet():
        torch.manual_seed(seed)
        import nni
        from nni.nas.evaluator import FunctionalEvaluator
        from nni.nas.execution import SequentialExecutionEngine
        from nni.nas.space import SimplifiedModelSpace
        from nni.nas.strategy import Random

        from slimsearch.search_spaces.mnist_cnn import MnistCnn

        train, test = _tutorial.loaders(data)
        rows: list[dict[str, Any]] = []

        def evaluate(model: nn.Module) -> None:
            optimizer = torch.optim.Adam(model.parameters(), lr=_tutorial.LEARNING_RATE)
            curve = []
            for _ in range(epochs):
                curve.append(_tutorial.epoch(model, optimizer, train, test))
                nni.report_intermediate_result(curve[-1]["test_accuracy"])
            rows.append({"params": _tutorial.params(model), **_tutorial.summary(curve)})
            nni.report_final_result(curve[-1]["test_accuracy"])

        channels, size, _ = data.input_shape
        space = MnistCnn(channels, len(data.classes), size)
        engine = SequentialExecutionEngine(max_model_count=trials)
        started = time.perf_counter(), time.process_time()
        Random(dedup=True, seed=seed)(SimplifiedModelSpace.from_model(space, FunctionalEvaluator(evaluate)), engine)
        spent = time.perf_counter() - started[0], time.process_time() - started[1]
        candidates = [
            {"architecture": dict(model.sample), **row} for model, row in zip(engine.list_models(), rows, strict=True)
        ]
    return {
        **_tutorial.setting(data, train, test, seed),
        "trials": trials,
        "seconds": spent[0],  # with the scoring after each epoch, which is part of the tutorial
        "cpu_seconds": spent[1],
        "candidates": candidates,
        "best": max(range(len(candidates)), key=lambda number: candidates[number]["test_accuracy_last"]),
    }
