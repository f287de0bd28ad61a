"""What a run tells Prometheus: the shipped files name it, and a real cluster exports it."""

from __future__ import annotations

import json
import logging
import re
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from slimsearch.evaluators import Outcome, Task
from slimsearch.search_spaces import Candidate
from slimsearch.strategies import Failure, RunStatus
from slimsearch.strategies._ray.metrics import NAMES, Metrics
from tests.conftest import ROOT

MONITORING = ROOT / "docs" / "monitoring"


class Search:
    """Of a search only its figures."""

    def status(self) -> RunStatus:
        return RunStatus({"running": 1, "complete": 2}, {"val_accuracy": 0.9, "latency_ms": 0.1}, 0.5)


@pytest.fixture
def cluster() -> Iterator[str]:
    """The address at which a node's figures are collected."""
    import ray

    ray.shutdown()
    context = ray.init(address="local", num_cpus=1, include_dashboard=False, logging_level=logging.ERROR)
    (node,) = ray.nodes()
    yield f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    assert context
    ray.shutdown()


def exported(url: str, wanted: str, deadline: float) -> str:
    while True:
        text = urllib.request.urlopen(url, timeout=5).read().decode()
        if wanted in text:
            return str(text)
        assert time.monotonic() < deadline, text[:2000]
        time.sleep(1)


@pytest.mark.slow
def test_a_cluster_exports_them(cluster: str, tmp_path: Path) -> None:
    metrics = Metrics("mine", Search(), 2, interval=0)  # type: ignore[arg-type]
    task = Task(7, Candidate({}), 3, 0, tmp_path)
    metrics.begin(task)
    metrics.report(task, 0, {"latency_ms": 0.2, "size_kib": 4.0})
    metrics.report(task, 2, {"train_loss": 0.3, "val_accuracy": 0.8, "val_loss": 0.4})
    other = Task(8, Candidate({}), 3, 0, tmp_path)
    metrics.begin(other)
    metrics.end(other, Outcome({"latency_ms": 0.15}))
    metrics.end(Task(9, Candidate({}), 3, 0, tmp_path), Failure("so it is"))
    metrics.refresh()
    text = exported(cluster, "ray_slimsearch_latency_ms", time.monotonic() + 60)
    series = {}
    for name, labels, value in re.findall(r"^ray_(slimsearch_\w+){(.*)} (\S+)$", text, re.MULTILINE):
        tags = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        assert tags["run"] == "mine"
        series[name, tags.get("state") or tags.get("metric") or tags.get("trial", "")] = float(value)
    assert {name for name, _ in series} == set(NAMES)
    assert series["slimsearch_trials", "complete"] == 2
    assert series["slimsearch_best", "val_accuracy"] == 0.9
    assert series["slimsearch_hypervolume", ""] == 0.5
    assert series["slimsearch_trial_epoch", "7"] == 2
    assert series["slimsearch_trial_train_loss", "7"] == 0.3
    assert series["slimsearch_latency_ms", ""] == 0.15
    assert series["slimsearch_workers_busy", ""] == 1
    assert 0 < series["slimsearch_worker_utilisation", ""] <= 1


def test_the_dashboard_draws_every_metric_and_no_other() -> None:
    dashboard = json.loads((MONITORING / "grafana.json").read_text())
    drawn = set()
    for panel in dashboard["panels"]:
        assert panel["targets"], panel["title"]
        for target in panel["targets"]:
            drawn |= set(re.findall(r"ray_(\w+)", target["expr"]))
    assert drawn == set(NAMES)
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    asked = [variable["query"]["query"] for variable in dashboard["templating"]["list"] if variable["type"] == "query"]
    assert all(set(re.findall(r"ray_(\w+)", query)) <= set(NAMES) for query in asked)


def test_prometheus_looks_where_ray_says_its_nodes_are() -> None:
    from ray._private.ray_constants import PROMETHEUS_SERVICE_DISCOVERY_FILE

    configuration = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    (job,) = configuration["scrape_configs"]
    assert job["file_sd_configs"] == [{"files": [f"/tmp/ray/{PROMETHEUS_SERVICE_DISCOVERY_FILE}"]}]
