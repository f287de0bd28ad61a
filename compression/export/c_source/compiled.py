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
# Before the first run, the stack below is filled, to see afterwards how far it was used.
_MAIN = """#include <stdio.h>
#include "HEADER"
#define FILLED 65536
__attribute__((noinline)) static void fill(void)
{
    volatile unsigned char stack[FILLED];
    for (int i = 0; i < FILLED; i++)
        stack[i] = 165;
}
__attribute__((noinline)) static int used(void)
{
    volatile unsigned char stack[FILLED];
    int i = 0;
    while (i < FILLED && stack[i] == 165)
        i++;
    return FILLED - i;
}
int main(void)
{
    for (int first = 1; fread(NAME_input(), sizeof(*NAME_input()), UPPER_INPUTS, stdin) == UPPER_INPUTS; first = 0) {
        if (first)
            fill();
        const float *outputs = NAME_run();
        if (first)
            fprintf(stderr, "%d", used());
        fwrite(outputs, sizeof(float), UPPER_OUTPUTS, stdout);
    }
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

    Attributes:
        object_file: of the C file, for tools such as ``size``.
        stack_bytes: that running the network took, in the last call.

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
        self.object_file, self.stack_bytes = folder / f"{name}.o", 0
        for words in (
            ["-std=c99", "-O2", f"-I{file.parent}", "-c", str(file), "-o", str(self.object_file)],
            ["-w", "-O2", f"-I{file.parent}", str(main), str(self.object_file), "-o", str(self._program), "-lm"],
        ):
            done = subprocess.run([compiler, *words], capture_output=True, text=True)
            if done.returncode:
                raise SlimsearchError(f"'{file}' does not compile: {done.stderr.strip()[:500]}")

    def __call__(self, inputs: Array) -> Array:
        """(N, ...) float32, or uint8 if the file takes pixels -> (N, outputs) float32, one example after the other.

        Raises:
            SlimsearchError: the program fails.
        """
        import numpy as np

        content = np.ascontiguousarray(inputs).tobytes()
        done = subprocess.run([str(self._program)], input=content, capture_output=True, env={"LD_BIND_NOW": "1"})
        outputs = np.frombuffer(done.stdout, np.float32)
        if done.returncode or not outputs.size or outputs.size % len(inputs):
            raise SlimsearchError(f"the compiled network fails with exit code {done.returncode}")
        self.stack_bytes = int(done.stderr)
        return outputs.reshape(len(inputs), -1)
