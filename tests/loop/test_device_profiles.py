"""Target devices: their limits on RAM and flash hold before training, and the exported C file declares the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import slimsearch
from slimsearch.errors import SlimsearchError
from slimsearch.evaluators.datasets import Dataset
from slimsearch.options.configuration import Configuration
from slimsearch.options.device_profiles import device_profile, device_profiles, with_target
from slimsearch.record.trial import COMPLETE, RULED_OUT
from slimsearch.report.exporting import default_format, export


def test_a_target_sets_limits_that_are_not_given() -> None:
    found = with_target(Configuration(space="lenet", target="cortex-m4", max_flash_kib=100))
    assert (found.max_ram_kib, found.max_flash_kib) == (256 - 16, 100)
    assert with_target(found) == found
    assert with_target(Configuration(space="lenet", target="raspberry-pi-4")).latency_threads == 4
    assert {device_profile(name).format for name in device_profiles()} == {"c", "onnx"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("runtime: x", "runtime 'x' is none of c, onnxruntime, openvino"),
        ("runtime: c\nram_kib: lots", "ram_kib"),
        ("runtime: c\nspeed: 3", "speed"),
        ("runtime: c\nram_kib: 8\nreserved_ram_kib: 9", "ram_kib 8 leaves nothing"),
        ("runtime: onnxruntime\nram_kib: 8", "ram_kib is for runtime c"),
        ("runtime: c\nthreads: 0", "threads 0 is less than 1"),
        ("[1, 2", "cannot read"),
    ],
)
def test_a_wrong_profile_is_one_clear_line(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    with pytest.raises(SlimsearchError, match=re.escape(message)) as caught:
        device_profile(str(path))
    assert "\n" not in str(caught.value)


def test_an_unknown_profile_is_named_with_a_similar_one() -> None:
    with pytest.raises(SlimsearchError, match="did you mean 'cortex-m"):
        device_profile("cortex-m")


SPACE = """
from torch import nn


def define(trial):
    width = trial.suggest_categorical("width", [2, 16])
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(4), nn.Flatten(), nn.Linear(4 * width, 10)
    )
"""


def test_a_network_that_does_not_fit_is_ruled_out_before_training(digits: Dataset, tmp_path: Path) -> None:
    (tmp_path / "space.py").write_text(SPACE)
    profile = tmp_path / "small.yaml"
    profile.write_text("runtime: c\nram_kib: 4\nreserved_ram_kib: 1\nflash_kib: 16\n")
    result = slimsearch.search(
        str(tmp_path / "space.py:define"), digits, target=str(profile), trials=2, epochs=1, sampler="grid",
        compress="none", workers=1, objectives="val_accuracy,flash_kib", run_dir=str(tmp_path / "run"),
    )  # fmt: skip
    trials = {trial.candidate.architecture["width"]: trial for trial in result.trials}
    assert trials[2].state == COMPLETE
    assert trials[16].state == RULED_OUT
    assert "ram_kib 4.25 exceeds --max-ram-kib 3" in trials[16].reason
    assert "training_seconds" not in trials[16].metrics
    # The image, and both channels after the convolution.
    assert trials[2].metrics["ram_kib"] == (64 + 2 * 64) * 4 / 1024
    assert default_format(tmp_path / "run") == "c"
    (file,) = export(tmp_path / "run", (), "c", tmp_path / "firmware")
    declared = dict(re.findall(r"_(RAM|FLASH)_BYTES (\d+)", file.path.with_suffix(".h").read_text()))
    for name, size in declared.items():
        assert int(size) / 1024 == trials[2].metrics[f"{name.lower()}_kib"]
