"""``slimsearch device``: prepares and checks boards that measure latency over SSH."""

from __future__ import annotations

import shlex
import subprocess
from typing import Any

from slimsearch.cli.command_parser import CommandParser
from slimsearch.errors import SlimsearchError, did_you_mean, escaped
from slimsearch.options.configuration import device_hosts
from slimsearch.runtimes import ON_ONNX

HELP = "prepare and check boards that measure latency over SSH"
_DESCRIPTION = (
    f"{HELP}, for --device-host. setup makes a virtual environment with the runtime in a folder on the board; check "
    "shows processor and packages, and times two small reference networks"
)
_EXAMPLES = ("setup pi@raspberrypi.local", "check pi@raspberrypi.local", "check pi4=pi@10.0.0.4,pi5=pi@10.0.0.5")
_ACTIONS = ("setup", "check")


def parser(program: str) -> CommandParser:
    found = CommandParser(_DESCRIPTION, program, _EXAMPLES)
    found.add_argument("action", help="setup or check")
    found.add_argument("hosts", help="user@board or NAME=user@board, several with commas, as for --device-host")
    found.add_argument("--runtime", default="onnxruntime", help=f"runtime of the files: {' or '.join(ON_ONNX)}")
    found.add_argument("--threads", least=1, default=1, help="of check: threads of the reference networks")
    return found


def run(options: dict[str, Any]) -> None:
    action, runtime, threads = options["action"], options["runtime"], options["threads"]
    for name, value, allowed in (("action", action, _ACTIONS), ("--runtime", runtime, ON_ONNX)):
        if value not in allowed:
            raise SlimsearchError(f"{name} '{value}' is none of {', '.join(allowed)}{did_you_mean(value, allowed)}")
    hosts = device_hosts(options["hosts"])
    if action == "setup":
        for address in hosts.values():
            _set_up(address, runtime)
        return
    from slimsearch.evaluators import check_boards

    for line in check_boards(hosts, runtime, threads):
        print(escaped(line))


def _set_up(address: str, runtime: str) -> None:
    from slimsearch.evaluators.latency.boards import FOLDER, ssh_command

    packages = ["numpy", "onnxruntime", *([runtime] if runtime != "onnxruntime" else [])]
    commands = (
        f'd="$HOME/{FOLDER}"; [ -x "$d/bin/python" ] || python3 -m venv "$d" || exit 3; '
        f'"$d/bin/python" -m pip install --upgrade --progress-bar off {" ".join(packages)} && echo "$d"'
    )
    print(f"installing {', '.join(packages)} in ~/{FOLDER} of {escaped(address)}", flush=True)
    try:
        code = subprocess.run(ssh_command(address, commands), stdin=subprocess.DEVNULL, check=False).returncode
    except OSError as error:
        raise SlimsearchError(f"cannot start 'ssh': {error.strerror}; install an OpenSSH client") from None
    if code == 3:
        raise SlimsearchError(f"'{address}' has no Python with venv: there, sudo apt install python3-venv")
    if code:
        raise SlimsearchError(f"the setup of '{address}' failed, see above; ssh must reach it without a question")
    print(f"ready; remove it with: ssh {shlex.quote(address)} 'rm -r ~/{FOLDER}'")
