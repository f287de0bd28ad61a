"""A data set that is deleted while a run goes on, and before it is resumed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image

from slimsearch.evaluators.datasets import Dataset
from tests.conftest import TINY
from tests.counts import Counts
from tests.faults.processes import Process, ended, errors, states

pytestmark = pytest.mark.faults


@pytest.fixture
def images(tmp_path: Path, digits: Dataset) -> Path:
    folder = tmp_path / "images"
    for i in range(300):
        of_class = folder / str(digits.train.targets[i])
        of_class.mkdir(parents=True, exist_ok=True)
        Image.fromarray(digits.train.inputs[i, 0]).save(of_class / f"{i}.png")
    return folder


def test_the_images_are_deleted(images: Path, tmp_path: Path, counts: Counts) -> None:
    """What has begun does not need them any more; to resume does, and says so."""
    words = ("--space", TINY, "--dataset", str(images), "--run-dir", "run", "--epochs", "30", "--workers", "1")
    process = Process(tmp_path, *words, "--compress", "quantize", "--top-k", "1")
    process.until(lambda: ended(process.run) >= 1)
    elsewhere = images.rename(tmp_path / "elsewhere")
    before = ended(process.run)
    process.until(lambda: ended(process.run) >= before + 2)
    process.kill()
    refused = Process(tmp_path, "--resume", "run")
    assert refused.end() == 2, refused.said
    assert errors(refused.said) == [f"error: unknown data set '{images}'; known: "] or len(errors(refused.said)) == 1
    assert str(images) in refused.said
    elsewhere.rename(images)
    again = Process(tmp_path, "--resume", "run")
    again.until(lambda: ended(again.run) >= before + 3)
    shutil.rmtree(images)
    assert again.end() == 0, again.said
    assert states(again.run)[:6] == ["complete"] * 6
    counts.add("faults injected", 3)
