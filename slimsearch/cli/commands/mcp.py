"""``slimsearch mcp``: a server of the Model Context Protocol, by which software agents search."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimsearch.cli.agent_tools import AgentTools
from slimsearch.cli.command_parser import CommandParser
from slimsearch.errors import SlimsearchError

if TYPE_CHECKING:
    from mcp.server import MCPServer

HELP = "serve tools for software agents, by the Model Context Protocol"
_DESCRIPTION = (
    f"{HELP}: check a space, start, watch and stop runs, export models. It serves standard input and output, or with "
    "--port HTTP on the loopback address. All paths must be in the folder, and code in its files is run. Needs "
    "slimsearch[mcp]"
)
_EXAMPLES = ("path/to/folder", "path/to/folder --port 8765")
_INSTRUCTIONS = (
    "Slimsearch searches neural network architectures, compresses the best and ranks the exported files by accuracy, "
    "latency and size. Use check before a long search, start to begin one, status with wait_seconds until it is "
    "finished, then export."
)


def parser(program: str) -> CommandParser:
    found = CommandParser(_DESCRIPTION, program, _EXAMPLES)
    found.add_argument("folder", help="folder of space files, data, runs and exported files")
    found.add_argument("--port", least=1, most=65535, help="serve HTTP on this port of the loopback address")
    return found


def run(options: dict[str, Any]) -> None:
    tools = AgentTools(Path(options["folder"]))
    served = server(tools)
    if options["port"] is None:
        served.run("stdio")
    else:
        served.run("streamable-http", host="127.0.0.1", port=options["port"])


def server(tools: AgentTools) -> MCPServer[Any]:
    """The server of `tools`.

    Raises:
        SlimsearchError: the package mcp is not installed.
    """
    try:
        from mcp.server import MCPServer
    except ImportError:
        raise SlimsearchError("the package mcp is not installed: pip install 'slimsearch[mcp]'") from None
    import slimsearch

    found: MCPServer[Any] = MCPServer("slimsearch", instructions=_INSTRUCTIONS, version=slimsearch.__version__)
    for tool in (tools.list_runs, tools.check, tools.start, tools.status, tools.stop, tools.models, tools.export):
        found.tool()(_answering(tool))
    return found


def _answering(tool: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """`tool`, whose mistakes are answers that the agent reads."""
    from mcp.server.mcpserver.exceptions import ToolError

    @functools.wraps(tool)
    def answer(*arguments: Any, **named: Any) -> dict[str, Any]:
        try:
            return tool(*arguments, **named)
        except SlimsearchError as error:
            raise ToolError(str(error)) from error

    return answer
