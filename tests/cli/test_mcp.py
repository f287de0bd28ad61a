"""Tools for software agents: paths and names that are refused, and a search driven through the protocol."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from slimsearch.cli.agent_tools import AgentTools
from slimsearch.errors import SlimsearchError
from tests.conftest import environment

NET = """
from torch import nn

def define(trial, in_channels, num_classes):
    width = trial.suggest_categorical("width", [4, 8])
    return nn.Sequential(nn.Conv2d(in_channels, width, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(num_classes))
"""


@pytest.mark.parametrize(
    "options",
    [
        {"space": "/etc/net.py:define"}, {"space": "../net.py:define"}, {"space": "os:system"},
        {"dataset": "~/images"}, {"dataset": "a/../../b"}, {"metrics": "energy=/tmp/x.py:f"}, {"run_dir": "x"},
        {"storage": "sqlite:///x.db"}, {"augment": "auto+/tmp/x.py:f"}, {"space": "lenet", "trials": "many"},
        {"spice": "lenet"}, {"dataset": "os:getcwd"}, {"metrics": "a=net.py:f,b=os:getcwd"},
        {"augment": "auto+os:getcwd"}, {"scheduler": "asha+os:getcwd"}, {"compress": "prune,os:getcwd:a=1"},
        {"compress": '{"os.path:join": {}}'}, {"model": "os:getcwd"}, {"co_search": '{"os:getcwd": {"use": true}}'},
    ],
)  # fmt: skip
def test_what_is_outside_of_the_folder_is_refused(options: dict[str, Any], tmp_path: Path) -> None:
    tools = AgentTools(tmp_path)
    with pytest.raises(SlimsearchError) as refused:
        tools.start("run", options)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "runs" / "run").exists()


def test_what_is_no_code_is_not_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {
        "space": "nets/net.py:define", "dataset": "hf:mnist", "objectives": "val_f1:max,energy:min", "seed": 3,
        "metrics": "energy=net.py:energy", "scheduler": "asha:eta=3:min_epochs=2+median", "augment": "auto+net.py:warp",
        "compress": "prune:schedule=agp:importance=taylor+distill:teacher=best,net.py:Mine:rate=1e-3", "trials": 4,
        "init": "torchvision:resnet18:IMAGENET1K_V1", "model": "timm:resnet18",
    }  # fmt: skip
    begun: list[list[str]] = []

    def begin(words: list[str], **_: object) -> None:
        begun.append(words)
        raise InterruptedError

    monkeypatch.setattr("subprocess.Popen", begin)
    with pytest.raises(InterruptedError):
        AgentTools(tmp_path).start("run", options)
    assert all(f"--{name}={value}" in begun[0] for name, value in options.items())


@pytest.mark.parametrize("name", ["spac", "config", "conf", "run_dir", "run-dir", "resume", "storage", "print_config"])
def test_no_process_begins_with_options_that_are_not_checked(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[object] = []
    monkeypatch.setattr("subprocess.Popen", lambda *words, **_: begun.append(words))
    with pytest.raises(SlimsearchError, match="cannot be chosen here"):
        AgentTools(tmp_path).start("run", {name: "x"})
    assert begun == []


@pytest.mark.parametrize("name", ["", "..", "a/b", "/etc", "-x", "a" * 200])
def test_names_of_runs(name: str, tmp_path: Path) -> None:
    tools = AgentTools(tmp_path)
    for call in (tools.status, tools.models, tools.export, tools.stop):
        with pytest.raises(SlimsearchError):
            call(name)  # type: ignore[operator]
    with pytest.raises(SlimsearchError):
        tools.export("run", to="../elsewhere")


@pytest.mark.slow
def test_an_agent_comes_to_an_exported_front(tmp_path: Path) -> None:
    pytest.importorskip("mcp", reason="needs the extra 'mcp'")
    from mcp import Client, StdioServerParameters

    (tmp_path / "net.py").write_text(NET)
    server = StdioServerParameters(
        command=sys.executable, args=["-m", "slimsearch.cli.main", "mcp", str(tmp_path)], env=environment()
    )
    calls = 0

    async def drive() -> dict[str, Any]:
        async with Client(server) as client:

            async def call(tool: str, **arguments: Any) -> dict[str, Any]:
                nonlocal calls
                calls += 1
                answer = await client.call_tool(tool, arguments)
                text = answer.content[0].text  # type: ignore[union-attr]
                assert not answer.is_error, text
                return dict(json.loads(text))

            assert (await client.call_tool("start", {"name": "x", "options": {"space": "os:system"}})).is_error
            options = {"space": "net.py:define", "dataset": "digits"}
            assert (await call("check", options=options))["works"] > 0
            await call("start", name="first", options={**options, "trials": 2, "epochs": 3, "compress": "quantize"})
            state = await call("status", name="first", wait_seconds=60)
            while state["state"] == "running":
                state = await call("status", name="first", wait_seconds=60)
            assert state["state"] == "finished", state
            assert state["recommended"] in [model["trial"] for model in state["front"]]
            return await call("export", name="first")

    exported = asyncio.run(drive())
    assert calls <= 8
    files = [tmp_path / path for path in exported["files"]]
    assert any(path.suffix == ".onnx" for path in files)
    assert all(path.is_file() for path in files)
