"""The package as it is installed, and beside modules of other names: the standard library's, and a user's own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.conftest import environment

ROOT = Path(__file__).resolve().parents[1]


def run(*arguments: str, folder: Path) -> str:
    process = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment(), text=True, capture_output=True
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


def test_typeguard_is_imported_on_a_python_without_ast_str(tmp_path: Path) -> None:
    program = """
import ast, slimsearch
vars(ast).get("_deprecated_globals", {}).pop("Str", None)
vars(ast).pop("Str", None)
import typeguard
print(hasattr(ast, "Str"), typeguard.check_type(1, int))
"""
    assert run("-c", program, folder=tmp_path) == "False 1\n"


def test_a_checkout_on_the_path_does_not_hide_the_standard_librarys_compression(tmp_path: Path) -> None:
    # Before Python 3.14 a folder with the same package takes the standard library's place.
    (tmp_path / "compression").mkdir()
    (tmp_path / "compression" / "zstd.py").touch()
    program = """
import os, sys
if sys.version_info < (3, 14):
    os.__file__ = os.path.join(sys.argv[1], "os.py")
import bz2, gzip, lzma, tarfile
from compression import zstd
print(zstd.__file__.startswith(os.path.dirname(os.__file__)), sys.path[0] == "")
"""
    assert run("-c", program, str(tmp_path), folder=ROOT) == "True True\n"
