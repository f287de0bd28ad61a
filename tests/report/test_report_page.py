"""What report.html shows is what the record says, and stays small however much there is."""

from __future__ import annotations

import base64
import io
import itertools
import json
import random
import re
import shlex
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

import slimsearch
from slimsearch.evaluators import DeployedModel, confusion, save_arrays
from slimsearch.evaluators.datasets import Dataset, load_dataset
from slimsearch.options.configuration import Configuration
from slimsearch.record.ranking import Ranking
from slimsearch.record.record import Record
from slimsearch.record.run_directory import RunDirectory
from slimsearch.record.trial import COMPLETE, COMPRESSION, FAILED, RUNNING, SEARCH, STEP, Trial
from slimsearch.report import example_predictions, page_data, plots
from slimsearch.report.html_pages import report_page
from slimsearch.report.importances import LEAST, importances
from slimsearch.report.onnx_layers import INPUT, Layer, compact, read_layers
from slimsearch.report.report_files import rewrite_reports
from slimsearch.report.run_summary import run_status
from slimsearch.report.timeline import Clock, Timeline
from slimsearch.search_spaces import Candidate
from tests.conftest import ROOT, Run

GOLDEN = ROOT / "tests" / "golden" / "run_format_1"

Finished = tuple[Path, "subprocess.CompletedProcess[str]"]


def data_of(directory: Path) -> dict[str, Any]:
    page = (directory / "report.html").read_text(encoding="utf-8")
    found = re.search(r'<script id="data"[^>]*>(.*?)</script>', page, re.S)
    assert found is not None
    return json.loads(found[1])  # type: ignore[no-any-return]


def record_of(path: Path) -> tuple[Record, Ranking]:
    with RunDirectory(path, create=False) as directory:
        ranking = Ranking.of(Configuration.read(directory.config))
        return Record(directory.open_study(ranking.objectives), None, ranking.objectives), ranking


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    path = Path(shutil.copytree(GOLDEN, tmp_path / "run"))
    rewrite_reports(path)
    return path


def trial(number: int, started: float = 0.0, ended: float = 0.0, **more: Any) -> Trial:
    given = {"kind": SEARCH, "state": COMPLETE, "fidelity": 1, "seed": 0, **more}
    candidate = given.pop("candidate", Candidate({"n": number}, {}))
    return Trial(number, candidate, started=started, ended=ended, seconds=max(0.0, ended - started), **given)


class TestHypervolume:
    def test_the_last_is_the_one_of_the_live_figures(self, golden: Path) -> None:
        record, ranking = record_of(golden)
        history = data_of(golden)["history"]
        for along in ("trials", "seconds"):
            series = [value for _, value, _ in history[along]["volume"]]
            assert series == sorted(series)
            assert series[-1] == pytest.approx(run_status(ranking, record.trials).hypervolume, rel=1e-5)

    def test_each_is_that_of_the_trials_so_far(self, golden: Path) -> None:
        record, ranking = record_of(golden)
        for place, value, _ in page_data.history(ranking, record.trials)["trials"]["volume"]:
            so_far = [t if t.number <= place else replace(t, kind=STEP) for t in record.trials]  # a step is on no front
            assert run_status(ranking, so_far).hypervolume == pytest.approx(value)


class TestTimeline:
    def test_trials_in_a_lane_do_not_overlap_and_no_lane_is_needless(self) -> None:
        rng = random.Random(0)
        trials = []
        for number in range(200):
            start = 1000 + 100 * rng.random()
            trials.append(trial(number, start, start + 10 * rng.random()))
        found = Timeline.of(trials)
        assert {bar.trial for bar in found.bars} == set(range(200))
        for lane in range(len(found.lanes)):
            bars = [bar for bar in found.bars if bar.lane == lane]
            assert bars
            assert all(one.end <= after.start for one, after in itertools.pairwise(bars))
        moments = [bar.start for bar in found.bars]
        assert len(found.lanes) == max(sum(bar.start <= now < bar.end for bar in found.bars) for now in moments)
        assert 0 < found.busy <= 1

    def test_a_run_that_paused_does_not_count_the_pause(self) -> None:
        trials = [trial(0, 1000, 1010), trial(1, 1010, 1020), trial(2, 9000, 9010), trial(3, 9005, 9020)]
        clock = Clock.of(trials)
        assert [clock(t.ended) for t in trials] == [10, 20, 30, 40]
        assert clock.breaks == [20]
        assert Timeline.of(trials).breaks == (20,)

    def test_drivers_have_lanes_of_their_own(self) -> None:
        one, two = {"driver": "a", "host": "one"}, {"driver": "b", "host": "two"}
        found = Timeline.of([trial(0, 10, 20, **one), trial(1, 30, 40, **two), trial(2, 12, 14, **one)])
        assert found.lanes == ("one: 1", "one: 2", "two: 1")

    def test_what_runs_ends_when_the_last_one_ended(self) -> None:
        found = Timeline.of([trial(0, 10, 20), trial(1, 15, 0, state=RUNNING)])
        assert [(bar.start, bar.end) for bar in found.bars] == [(0, 10), (5, 10)]

    def test_of_a_real_run(self, golden: Path) -> None:
        data = data_of(golden)
        bars = sorted((t["bar"] for t in data["trials"] if t["bar"]), key=lambda bar: (bar[2], bar[0]))
        assert bars
        assert all(a[2] != b[2] or a[1] <= b[0] for a, b in itertools.pairwise(bars))
        assert len(data["timeline"]["lanes"]) == 1 + max(bar[2] for bar in bars)


class TestImportances:
    def test_who_decides_is_found(self) -> None:
        rng = random.Random(0)
        trials = []
        for number in range(40):
            point = {"matters": rng.randrange(4), "not": rng.randrange(4), "same": 1}
            metrics = {"val_accuracy": 0.2 * point["matters"] + 0.001 * rng.random(), "size_kib": 5.0}
            trials.append(trial(number, candidate=Candidate(point, {}), metrics=metrics))
        ranking = Ranking.of(Configuration(space="x", objectives="val_accuracy,size_kib"))
        accuracy, size = importances(trials, ranking.objectives)
        assert accuracy.method == "fANOVA"
        assert sum(accuracy.shares.values()) == pytest.approx(1)
        assert next(iter(accuracy.shares)) == "matters"
        assert accuracy.shares["matters"] > 0.9
        assert accuracy.shares["same"] == 0
        assert size.shares == {}
        assert size.note
        many = [replace(t, number=40 * turn + t.number) for turn in range(6) for t in trials]
        assert importances(many, ranking.objectives)[0].method == "PED-ANOVA"
        few = importances(trials[: LEAST - 1], ranking.objectives)
        assert all(not one.shares and str(LEAST) in one.note for one in few)

    def test_a_choice_may_have_many_values(self) -> None:
        """fANOVA's time doubles with each value of a category."""
        rng = random.Random(0)
        trials = []
        for number in range(60):
            point = {"width": rng.randrange(1, 100), "name": f"layer {rng.randrange(100)}"}
            trials.append(trial(number, candidate=Candidate(point, {}), metrics={"val_accuracy": point["width"] / 100}))
        ranking = Ranking.of(Configuration(space="x", objectives="val_accuracy"))
        (found,) = importances(trials, ranking.objectives)
        assert found.method == "fANOVA"
        assert found.shares["width"] > 0.8

    def test_compressed_and_failed_ones_do_not_count(self) -> None:
        ranking = Ranking.of(Configuration(space="x", objectives="val_accuracy,size_kib"))
        metrics = {"val_accuracy": 0.5, "size_kib": 1.0}
        trials = [trial(n, metrics=metrics, kind=COMPRESSION if n % 2 else SEARCH) for n in range(2 * LEAST - 2)]
        trials.append(trial(len(trials), state=FAILED))
        assert "9 completed trials" in importances(trials, ranking.objectives)[0].note


class TestConfusion:
    def test_every_image_is_in_it_once(self) -> None:
        rng = np.random.default_rng(0)
        labels, predictions = rng.integers(0, 7, 300), rng.integers(0, 7, 300)
        cells = confusion(labels, predictions)
        assert sum(images for *_, images in cells) == 300
        for true, taken, images in cells:
            assert images == int(((labels == true) & (predictions == taken)).sum())
        assert [images for *_, images in cells] == sorted((images for *_, images in cells), reverse=True)

    def test_the_diagonal_is_the_recorded_accuracy(self, finished: Finished, digits: Dataset) -> None:
        record, _ = record_of(finished[0])
        finalists = [t for t in record.trials if t.final]
        assert finalists
        assert digits.test is not None
        for t in finalists:
            assert sum(images for *_, images in t.confusion) == len(digits.test) == t.final["test_images"]
            right = sum(images for true, taken, images in t.confusion if true == taken)
            assert right / len(digits.test) == t.final["test_accuracy"]
        shown = {one["trial"]: one["confusion"] for one in data_of(finished[0])["finalists"]}
        for t in finalists:
            assert shown[t.number]["whole"]
            assert {tuple(cell) for cell in shown[t.number]["cells"]} == set(t.confusion)

    def test_of_many_classes_the_pairs_that_are_confused_most(self) -> None:
        cells = tuple((i, i, 50) for i in range(100)) + tuple((i, i + 1, 40 - i) for i in range(40))
        found = page_data.confusion_summary(trial(0, confusion=cells))
        assert found is not None
        assert not found["whole"]
        assert found["cells"] == [(i, i + 1, 40 - i) for i in range(20)]
        assert found["totals"][0] == 90
        assert (found["images"], found["wrong"]) == (5000 + 820, 820)

    def test_a_run_of_before_has_none(self, golden: Path) -> None:
        assert all(one["confusion"] is None for one in data_of(golden)["finalists"])


class TestMistakes:
    def test_they_are_wrong_and_the_surest_come_first(self, finished: Finished, digits: Dataset) -> None:
        assert digits.test is not None
        found = data_of(finished[0])["finalists"]
        assert any(one["mistakes"] for one in found)
        for one in found:
            model = DeployedModel(finished[0] / f"trials/{one['trial']:05d}/model.onnx")
            examples = model.examples(digits, digits.test)
            assert len(one["mistakes"]) == min(12, int((examples[:, 0] == 0).sum()))
            shares = [mistake["share"] for mistake in one["mistakes"]]
            assert shares == sorted(shares, reverse=True)
            for mistake in one["mistakes"]:
                right, true, predicted = examples[mistake["example"], :3]
                assert (right, [true], [predicted]) == (0, mistake["true"], mistake["predicted"])
                kind, _, content = mistake["image"].partition(",")
                assert kind == "data:image/png;base64"
                with Image.open(io.BytesIO(base64.b64decode(content))) as picture:
                    pixels = np.asarray(picture.convert("L"), dtype=float)
                original = digits.test.inputs[mistake["example"], 0].astype(float)
                assert np.corrcoef(pixels.ravel(), original.ravel())[0, 1] > 0.999

    def test_of_several_labels(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(0)
        inputs, labels = rng.random((200, 5), dtype=np.float32), rng.integers(0, 2, (200, 3))
        data = load_dataset((inputs, labels), task="multilabel")
        assert data.test is not None
        outputs = np.where(data.test.targets > 0, 1.0, -1.0).astype(np.float32)
        outputs[3] *= -1
        outputs[5, 1] *= -1
        examples = data.task.examples(outputs, data.test.targets)
        example_predictions.store(None, data, data.test, examples, tmp_path)  # type: ignore[arg-type]
        found = example_predictions.shown(tmp_path)["mistakes"]
        assert [mistake["example"] for mistake in found] == [3, 5], "all labels are wrong, and one"
        assert found[0]["true"] == np.flatnonzero(data.test.targets[3]).tolist()
        assert found[0]["predicted"] == np.flatnonzero(data.test.targets[3] == 0).tolist()
        assert found[0]["image"] is None

    def test_the_largest_errors_of_a_regression(self, tmp_path: Path) -> None:
        examples = np.stack([np.arange(50.0), np.arange(50.0) + 0.1], axis=1)
        examples[[7, 30], 1] = -100, 60
        save_arrays({"examples": examples.astype(np.float32)}, tmp_path / "test_predictions.safetensors")
        found = example_predictions.shown(tmp_path)["errors"]
        assert found[:2] == [[7, 7.0, -100.0], [30, 30.0, 60.0]]

    def test_files_of_others_are_left_out(self, tmp_path: Path) -> None:
        path = tmp_path / "test_mistakes.safetensors"
        for content in (
            {"true": np.zeros((3, 1))},
            {"true": np.zeros(3), "predicted": np.zeros(3), "share": np.zeros(3), "example": np.zeros(3)},
            {"true": np.zeros((9, 1)), "predicted": np.zeros((2, 1)), "share": np.zeros(9), "example": np.zeros(9)},
        ):
            save_arrays(content, path)
            assert example_predictions.shown(tmp_path) == {}
        path.write_bytes(b"nothing")
        assert example_predictions.shown(tmp_path) == {}


def test_the_command_exports_a_finalist(
    finished: Finished, monkeypatch: pytest.MonkeyPatch, run: Run, tmp_path: Path
) -> None:
    run_dir = Path(shutil.copytree(finished[0], tmp_path / "my run"))
    data = page_data.page_data(
        run_dir, (), [], Ranking.of(Configuration.read(run_dir / "config.yaml")),
        Configuration.read(run_dir / "config.yaml"), json.loads((run_dir / "environment.json").read_text()),
    )  # fmt: skip
    number = json.loads((run_dir / "top_models.json").read_text())[0]["trial"]
    program, command, *words = shlex.split(f"{data['export']} --models {number} --to models")
    assert program == "slimsearch"
    done = run(*words, command=command)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "models" / f"my run-{number}.onnx").is_file()


class TestLayers:
    def test_they_have_the_parameters_of_the_network(self, finished: Finished) -> None:
        models = json.loads((finished[0] / "top_models.json").read_text())
        assert any("quantize" in model["recipe"] for model in models)
        for model in models:
            layers = read_layers(finished[0] / model["artifact"])
            assert sum(layer.params * layer.times for layer in layers) == model["metrics"]["params"]
            assert layers[0].inputs == (INPUT,)
            assert layers[-1].shape == (10,)
            assert any(layer.int8 for layer in layers) == ("quantize" in model["recipe"])
        shown = data_of(finished[0])["finalists"]
        assert [one["trial"] for one in shown] == [model["trial"] for model in models]
        assert all(one["layers"] for one in shown)

    def test_what_repeats_is_drawn_once(self) -> None:
        layers = [Layer("Conv 7×7", "conv", (64, 9, 9), 100, inputs=(INPUT,))]
        for _ in range(20):  # residual blocks
            start = len(layers) - 1
            layers.append(Layer("Conv 3×3", "conv", (64, 9, 9), 10, inputs=(start,), fused=("ReLU",)))
            layers.append(Layer("Conv 3×3", "conv", (64, 9, 9), 10, inputs=(start + 1,)))
            layers.append(Layer("Add", "join", (64, 9, 9), inputs=(start, start + 2)))
        layers.append(Layer("Linear", "linear", (10,), 640, inputs=(len(layers) - 1,)))
        stem, block, head = compact(layers)
        assert (stem.operator, head.operator) == ("Conv 7×7", "Linear")
        assert (block.times, block.params, block.inside) == (20, 20, ("Conv 3×3 + ReLU", "Conv 3×3", "Add"))
        assert [layer.inputs for layer in (stem, block, head)] == [(INPUT,), (0,), (1,)]
        assert compact(layers, most=100) == layers

    def test_a_long_chain_has_its_middle_in_one(self) -> None:
        layers = [Layer(f"Op {i}", inputs=(i - 1,), params=1) for i in range(100)]
        rows = compact(layers)
        assert len(rows) <= 28
        assert sum(row.params * row.times for row in rows) == 100


def ten_thousand(golden: Path) -> list[Trial]:
    """Writes the report of as much as a real trial has to say, ten thousand times; the trials."""
    rng = random.Random(0)
    record, ranking = record_of(golden)
    searched = [t for t in record.trials if t.kind == SEARCH and t.state == COMPLETE]
    trials = []
    for number in range(10_000):
        like, start = searched[number % len(searched)], 1e9 + number
        metrics = {name: value * (1 + 0.2 * rng.random()) for name, value in like.metrics.items()}
        trials.append(replace(like, number=number, metrics=metrics, final={}, started=start, ended=start + 2))
    configuration = Configuration.read(golden / "config.yaml")
    environment = json.loads((golden / "environment.json").read_text())
    page = report_page("run", page_data.page_data(golden, trials, [], ranking, configuration, environment))
    (golden / "report.html").write_text(page, encoding="utf-8")
    return trials


def test_ten_thousand_trials_are_a_page_below_two_megabytes(golden: Path) -> None:
    """Counts and hypervolume are of all of them."""
    trials = ten_thousand(golden)
    _, ranking = record_of(golden)
    assert (golden / "report.html").stat().st_size < 2_000_000
    data = data_of(golden)
    assert data["of"] == data["counts"][COMPLETE] == 10_000
    shown = {t["number"] for t in data["trials"]}
    assert 500 <= len(shown) <= 1000
    front = {t.number for t in ranking.front(trials)}
    assert front <= shown
    assert data["front"] == len(front)
    assert 9999 in shown


class TestPlots:
    @pytest.mark.parametrize("kind", ["front", "hypervolume", "importances", "timeline", "parallel"])
    def test_each_is_drawn_in_each_format(self, golden: Path, tmp_path: Path, kind: str) -> None:
        before = {file: file.read_bytes() for file in golden.rglob("*") if file.is_file()}
        for suffix, begin in ((".png", b"\x89PNG"), (".svg", b"<?xml")):
            path = slimsearch.plot(golden, kind, tmp_path / f"plot{suffix}")
            assert path.read_bytes().startswith(begin)
            assert path.stat().st_size > 2000
        assert {file: file.read_bytes() for file in golden.rglob("*") if file.is_file()} == before

    def test_every_axis_has_ticks_that_can_be_told_apart(self, golden: Path) -> None:
        """Also within a decade, for values that hardly differ, and for a single one."""
        draws, data = random.Random(0), data_of(golden)
        for cost in ("latency_ms", "size_kib", "params", "macs"):
            data["objectives"] = [
                {"metric": "val_accuracy", "direction": "maximize"}, {"metric": cost, "direction": "minimize"}
            ]  # fmt: skip
            for _ in range(6):
                around, decades = 10 ** draws.uniform(-2, 7), 10 ** draws.uniform(-4, 0.7)
                error, spread = 10 ** draws.uniform(-3, 0), 10 ** draws.uniform(-3, 0)
                number = draws.choice([1, 2, 7])
                for t in data["trials"]:
                    at = t["number"] % number / number
                    values = {"val_accuracy": 1 - error * (1 - spread * at), cost: around * 10 ** (decades * at)}
                    t["metrics"] = {**t["metrics"], **values}
                figure = Figure(figsize=(7.2, 4.4), layout="constrained")
                FigureCanvasAgg(figure)
                plots.KINDS["front"](figure, data)
                figure.draw_without_rendering()
                axes = figure.axes[0]
                for axis in (axes.xaxis, axes.yaxis):
                    low, high = axis.get_view_interval()
                    labels = [t.label1 for t in axis.get_major_ticks() if low <= t.get_loc() <= high]
                    texts = [label.get_text() for label in labels]
                    assert 3 <= len(set(texts)) == len(texts), (cost, values, texts)
                    places = [label.get_window_extent() for label in labels]
                    assert not any(one.overlaps(other) for one, other in itertools.pairwise(places)), texts

    def test_what_is_wrong_is_one_line(self, golden: Path, tmp_path: Path) -> None:
        for run, kind, name, said in (
            (golden, "back", "a.png", "there is no plot 'back'; plots: front, hypervolume, importances, timeline"),
            (golden, "front", "a.gif", "does not end in one of .png, .svg, .pdf"),
            (golden, "front", "none/a.png", "cannot write '.*none/a.png': No such file or directory"),
            (tmp_path / "no run", "front", "a.png", "is not a run directory"),
        ):
            with pytest.raises(slimsearch.SlimsearchError, match=said):
                slimsearch.plot(run, kind, tmp_path / name)

    def test_names_are_text(self, golden: Path, tmp_path: Path) -> None:
        """matplotlib would read mathematics between dollar signs, and fail of what is none."""
        data = data_of(golden)
        for t in data["trials"]:
            t["point"] = {"$\\bad{$": t["number"] % 2}
        data["choices"] = {"$\\bad{$": ['"<script>"', '"$x_{$"']}
        figure = Figure()
        with rc_context({"text.parse_math": False}):
            plots.KINDS["parallel"](figure, data)
            figure.savefig(tmp_path / "a.svg")
        drawn = ElementTree.parse(tmp_path / "a.svg")
        assert not any(element.tag.endswith("script") for element in drawn.iter())
