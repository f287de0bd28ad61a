"""The package as it is installed, and beside modules of other names: the standard library's, and a user's own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
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


def test_a_wheel_of_the_source_distribution_has_every_file_and_nothing_outside_the_package(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name in ("src", "slimsearch", "compression", "evaluators", "search_spaces", "strategies"):
        shutil.copytree(
            ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
        )
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = "import sys; from setuptools import build_meta; getattr(build_meta, sys.argv[1])(sys.argv[2])"
    run("-c", build, "build_sdist", str(tmp_path), folder=source)
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    run("-c", build, "build_wheel", str(tmp_path), folder=next((tmp_path / "unpacked").iterdir()))
    wheel = next(tmp_path.glob("*.whl"))
    installed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    files = {
        os.path.relpath(os.path.join(folder, name), source / "src")
        for folder, _, names in os.walk(source / "src" / "slimsearch", followlinks=True)
        for name in names
    }
    assert installed == files
    assert {"slimsearch/options/presets/edge.yaml", "slimsearch/compression/recipes/fused.yaml"} <= installed
