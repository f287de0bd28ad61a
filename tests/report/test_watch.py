"""Pages of runs that go on: served to this machine's browser alone, and only what their records say."""

from __future__ import annotations

import csv
import http.client
import io
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import Objective, front
from slimsearch.options.configuration import Configuration
from slimsearch.report.page_server import PageServer
from slimsearch.report.report_files import rewrite_reports
from slimsearch.report.watched_runs import MOST_RUNS, WatchedRuns
from tests.conftest import ROOT, environment
from tests.report.test_report_page import GOLDEN, data_of

Ask = Callable[..., "tuple[int, dict[str, str], bytes]"]


@contextmanager
def served(*paths: Path) -> Iterator[Ask]:
    """The pages of the runs in `paths`; yields a function that asks for one and returns status, headers and body."""
    with PageServer(WatchedRuns(paths), 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()

        def ask(path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
            connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
            port, given = server.server_port, {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, headers={"Host": f"127.0.0.1:{port}", **given})
            answer = connection.getresponse()
            found = answer.status, dict(answer.getheaders()), answer.read()
            connection.close()
            return found

        yield ask
        server.shutdown()


FILE = "trials/00001/model.onnx"
"""Recorded in the golden run, which has no files."""


def in_database(folder: Path) -> Path:
    """The golden run with its study in a database."""
    path, url = Path(shutil.copytree(GOLDEN, folder / "run")), f"sqlite:///{folder / 'study.db'}"
    journal = JournalStorage(JournalFileBackend(str(path / "study.journal")))
    name = optuna.get_all_study_names(journal)[0]
    optuna.copy_study(from_study_name=name, from_storage=journal, to_storage=url)
    (path / "study.journal").unlink()
    Configuration.read(path / "config.yaml").replace(storage=url, study=name).write(path / "config.yaml")
    return path


def copies(folder: Path, *names: str) -> list[Path]:
    """Copies of the golden run, with a file."""
    paths = [Path(shutil.copytree(GOLDEN, folder / name)) for name in names]
    for path in paths:
        (path / FILE).parent.mkdir(parents=True)
        (path / FILE).write_bytes(b"a file")
    return paths


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two runs, of which the second has only the first half of the trials."""
    paths = copies(tmp_path_factory.mktemp("two"), "one", "other run")
    journal = paths[1] / "study.journal"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[: len(lines) // 2]))
    return paths


@pytest.fixture(scope="module")
def ask(two: list[Path]) -> Iterator[Ask]:
    with served(*two) as found:
        yield found


def of(answer: tuple[int, dict[str, str], bytes]) -> dict[str, Any]:
    assert answer[0] == 200, answer
    return json.loads(answer[2])  # type: ignore[no-any-return]


def test_the_data_is_that_of_the_report(ask: Ask, tmp_path: Path) -> None:
    (path,) = copies(tmp_path, "one")
    rewrite_reports(path)
    found = of(ask("/runs/one/data.json"))
    assert found.pop("state") == "finished"
    del found["read"]
    assert found == {**data_of(path), "export": found["export"]}


def test_nothing_is_sent_again_while_nothing_has_changed(ask: Ask) -> None:
    for page in ("/data.json", "/runs/one/data.json"):
        revision = ask(page)[1]["ETag"]
        status, _, body = ask(page, If_None_Match=revision)
        assert (status, body) == (304, b"")
        assert ask(page, If_None_Match='"another"')[0] == 200


def test_trials_that_are_added_appear(tmp_path: Path) -> None:
    (path,) = copies(tmp_path, "run")
    journal = path / "study.journal"
    content = journal.read_bytes()
    lines = content.splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[: len(lines) // 3]) + lines[len(lines) // 3][:20])  # is being written
    with served(path) as ask:
        status, headers, body = ask("/runs/run/data.json")
        before = len(json.loads(body)["trials"])
        journal.write_bytes(content)
        deadline = time.monotonic() + 60
        while status == 200 and ask("/runs/run/data.json", If_None_Match=headers["ETag"])[0] == 304:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert len(of(ask("/runs/run/data.json"))["trials"]) > before


def test_a_study_in_a_database(tmp_path: Path) -> None:
    (golden,) = copies(tmp_path, "golden")
    path = in_database(tmp_path)
    with served(path, golden) as ask:
        data, expected = (of(ask(f"/runs/{name}/data.json")) for name in ("run", "golden"))
        assert [t["metrics"] for t in data["trials"]] == [t["metrics"] for t in expected["trials"]]
        assert (data["front"], data["state"]) == (expected["front"], "finished")
        assert len(of(ask("/data.json"))["trials"]) == 2 * len(data["trials"])
    assert not (path / "study.journal").exists()


def test_a_database_on_another_machine_is_named_again(tmp_path: Path) -> None:
    """A run directory of somebody else may name any machine."""
    path = in_database(tmp_path)
    configuration = Configuration.read(path / "config.yaml")
    assert configuration.storage is not None
    configuration.replace(storage="postgresql://me:secret@elsewhere/studies").write(path / "config.yaml")
    with pytest.raises(SlimsearchError, match=r"add --storage postgresql://me:\*\*\*@elsewhere/studies"):
        WatchedRuns([path])
    assert list(WatchedRuns([path], configuration.storage).runs) == ["run"]


def test_fronts_of_several_runs(ask: Ask) -> None:
    found = of(ask("/data.json"))
    assert [run["name"] for run in found["runs"]] == ["one", "other run"]
    objectives = [Objective(one["metric"], one["direction"]) for one in found["objectives"]]
    alone = [of(ask(f"/runs/{name}/data.json")) for name in ("one", "other%20run")]
    for i, data in enumerate(alone):
        mine = [trial for trial in found["trials"] if trial["run"] == i]
        assert [trial["own"] for trial in mine] == [trial["number"] for trial in data["trials"]]
        assert [trial["on_own_front"] for trial in mine] == [trial["on_front"] for trial in data["trials"]]
    assert [trial["number"] for trial in found["trials"]] == list(range(len(found["trials"])))
    members = [trial for trial in found["trials"] if trial["on_own_front"]]
    joint = {members[i]["number"] for i in front(objectives, [trial["metrics"] for trial in members])}
    assert {trial["number"] for trial in found["trials"] if trial["on_front"]} == joint
    assert sum(run["joint"] for run in found["runs"]) == len(joint)
    file = next(trial["artifact"] for trial in found["trials"] if trial["artifact"])
    assert file == f"runs/one/{FILE}"
    assert ask(f"/{file}")[2] == b"a file"


def test_all_trials_as_csv(ask: Ask) -> None:
    rows = list(csv.DictReader(io.StringIO(ask("/runs/one/trials.csv")[2].decode())))
    trials = of(ask("/runs/one/data.json"))["trials"]
    assert [int(row["trial"]) for row in rows] == [trial["number"] for trial in trials]
    for row, trial in zip(rows, trials, strict=True):
        assert {name: float(row[name]) for name in trial["metrics"]} == pytest.approx(trial["metrics"], rel=1e-5)
        assert row["on_front"] == str(int(trial["on_front"]))


@pytest.mark.parametrize(
    "path",
    [
        "/runs/one/config.yaml", "/runs/one/study.journal", "/runs/one/trials/00000/../../config.yaml",
        "/runs/one/trials/00000/%2e%2e/%2e%2e/config.yaml", "/runs/one/..%2f..%2fetc/passwd", "/../etc/passwd",
        "/runs/one//etc/passwd", "/runs/none/data.json", "/runs/one", "/runs/", "/report.html",
    ],
)  # fmt: skip
def test_no_other_file_is_served(ask: Ask, path: str) -> None:
    assert ask(path)[0] == 404


def test_a_link_out_of_the_run_is_not_followed(tmp_path: Path) -> None:
    (path,) = copies(tmp_path, "run")
    secret = tmp_path / "secret"
    secret.write_text("secret")
    with served(path) as ask:
        assert ask(f"/runs/run/{FILE}")[2] == b"a file"
        (path / FILE).unlink()
        (path / FILE).symlink_to(secret)
        assert ask(f"/runs/run/{FILE}")[0] == 404
    with pytest.raises(SlimsearchError, match="link out of the run directory"):
        WatchedRuns([path])


def test_only_this_machine_s_browser_reads_the_pages(ask: Ask) -> None:
    for host in ("example.org", "127.0.0.1", "example.org:80", ""):
        assert ask("/data.json", Host=host)[0] == 403, "another name may point at this address"
    for method in ("HEAD", "POST", "PUT", "DELETE", "OPTIONS"):
        assert ask("/data.json", method)[0] == 405
    for page in ("/", "/data.json", "/runs/one/", "/runs/one/trials.csv"):
        status, headers, _ = ask(page, Origin="http://example.org")
        assert status == 200
        assert not any(name.lower().startswith("access-control") for name in headers)
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]


def test_a_run_that_is_damaged_meanwhile_is_one_line(tmp_path: Path) -> None:
    paths = copies(tmp_path, "good", "bad")
    journal = paths[1] / "study.journal"
    lines = journal.read_bytes().splitlines(keepends=True)
    with served(*paths) as ask:
        journal.write_bytes(b"".join([*lines[:3], b"{}\n", *lines[4:]]))
        status, _, body = ask("/runs/bad/data.json")
        assert status == 503
        assert "damaged" in json.loads(body)["error"]
        found = of(ask("/data.json"))
        assert [bool(run["error"]) for run in found["runs"]] == [False, True]
        assert {trial["run"] for trial in found["trials"]} == {0}
        shutil.rmtree(paths[1])
        status, _, body = ask("/runs/bad/data.json")
        assert status == 503
        assert "not a run directory" in json.loads(body)["error"]


def test_runs_that_do_not_fit_in_one_chart(tmp_path: Path) -> None:
    one, other = copies(tmp_path, "one", "other")
    config = other / "config.yaml"
    text = config.read_text()
    with pytest.raises(SlimsearchError, match="not a run directory"):
        WatchedRuns([one, tmp_path])
    with pytest.raises(SlimsearchError, match="given twice"):
        WatchedRuns([one, one])
    with pytest.raises(SlimsearchError, match=f"at most {MOST_RUNS} runs"):
        WatchedRuns([one] * (MOST_RUNS + 1))
    described = json.loads((other / "environment.json").read_text())
    described["dataset"]["fingerprint"] = "0" * 16
    (other / "environment.json").write_text(json.dumps(described))
    with pytest.raises(SlimsearchError, match="different data"):
        WatchedRuns([one, other])
    shutil.copy(one / "environment.json", other / "environment.json")
    objectives = next(line for line in text.splitlines() if line.startswith("objectives:"))
    config.write_text(text.replace(objectives, "objectives: val_accuracy,params"))
    (other / "study.journal").unlink()
    shutil.rmtree(other / "trials")
    with pytest.raises(SlimsearchError, match="one by one"):
        WatchedRuns([one, other])


def test_the_command_serves_until_ctrl_c(two: list[Path]) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "slimsearch.cli.main", "watch", str(two[0])],
        cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        address = process.stdout.readline().split()[0]
        assert address.startswith("http://127.0.0.1:")
        host, _, path = address.removeprefix("http://").partition("/")
        connection = http.client.HTTPConnection(host, timeout=60)
        connection.request("GET", f"/{path}")
        assert connection.getresponse().status == 200
    finally:
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "")
