"""C files of networks, compiled and run on this machine."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimsearch.errors import SlimsearchError

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

_COMPILERS = ("cc", "gcc", "clang")
_MAIN = """#include <stdio.h>
#include "HEADER"
int main(void)
{
    while (fread(NAME_input(), sizeof(float), UPPER_INPUTS, stdin) == UPPER_INPUTS)
        fwrite(NAME_run(), sizeof(float), UPPER_OUTPUTS, stdout);
    return 0;
}
"""


def c_compiler() -> str | None:
    """The path of a C compiler on this machine, or None."""
    return next((path for name in _COMPILERS if (path := shutil.which(name)) is not None), None)


class CompiledNetwork:
    """A C file of `write_c`, compiled with ``-O2``.

    Args:
        file: the C file, with its header beside it.
        name: prefix of its C names.
        folder: of the compiled program.

    Raises:
        SlimsearchError: there is no C compiler, or it rejects the file.
    """

    def __init__(self, file: Path, name: str, folder: Path) -> None:
        compiler = c_compiler()
        if compiler is None:
            raise SlimsearchError(f"there is no C compiler here: install one of {', '.join(_COMPILERS)}")
        main, self._program = folder / f"{name}_main.c", folder / f"{name}_main"
        text = _MAIN.replace("HEADER", file.with_suffix(".h").name).replace("NAME", name)
        main.write_text(text.replace("UPPER", name.upper()))
        command = [
            compiler, "-std=c99", "-O2", "-Wall", "-Wextra", "-Werror", f"-I{file.parent}", str(main), str(file),
            "-o", str(self._program), "-lm",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SlimsearchError(f"'{file}' does not compile: {done.stderr.strip()[:500]}")

    def __call__(self, inputs: Array) -> Array:
        """(N, ...) float32 -> (N, outputs) float32, one example after the other.

        Raises:
            SlimsearchError: the program fails.
        """
        import numpy as np

        content = np.ascontiguousarray(inputs, np.float32).tobytes()
        done = subprocess.run([str(self._program)], input=content, capture_output=True)
        outputs = np.frombuffer(done.stdout, np.float32)
        if done.returncode or not outputs.size or outputs.size % len(inputs):
            raise SlimsearchError(f"the compiled network fails with exit code {done.returncode}")
        return outputs.reshape(len(inputs), -1)
