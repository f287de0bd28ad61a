"""A disk that is full, and one that cannot be written to: the run ends in a line, and goes on when there is room."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import TINY, environment
from tests.counts import Counts
from tests.faults.processes import Process, ended, errors, finished, states

pytestmark = pytest.mark.faults

WORDS = (
    "--space", TINY, "--dataset", "digits", "--run-dir", "run", "--epochs", "8", "--compress", "none", "--workers", "1"
)  # fmt: skip
ALL = ["complete"] * 6
INODES = 400

# In front of the C library: while a file exists, nothing below a folder can be written or created, for lack of quota.
QUOTA = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

static int used_up(void) {
    char *flag = getenv("QUOTA_FLAG");
    return flag && access(flag, F_OK) == 0;
}
static int below(const char *path) {
    char *folder = getenv("QUOTA_FOLDER");
    return folder && strncmp(path, folder, strlen(folder)) == 0;
}
static int refused(int file) {
    char link[64], path[4096];
    if (!used_up()) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size < 0) return 0;
    path[size] = 0;
    return below(path);
}
#define REAL(name) static __typeof__(name) *real; if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)
#define REFUSE do { errno = EDQUOT; return -1; } while (0)

ssize_t write(int file, const void *data, size_t size) {
    REAL(write); int before = errno;
    if (refused(file)) REFUSE;
    errno = before; return real(file, data, size);
}
ssize_t writev(int file, const struct iovec *data, int count) {
    REAL(writev);
    if (refused(file)) REFUSE;
    return real(file, data, count);
}
ssize_t pwrite64(int file, const void *data, size_t size, off64_t place) {
    REAL(pwrite64);
    if (refused(file)) REFUSE;
    return real(file, data, size, place);
}
int mkdir(const char *path, mode_t mode) {
    REAL(mkdir);
    if (used_up() && below(path) && access(path, F_OK)) REFUSE;
    return real(path, mode);
}
#define OPEN(name) int name(const char *path, int flags, ...) { \
    REAL(name); va_list more; va_start(more, flags); mode_t mode = va_arg(more, mode_t); va_end(more); \
    if (flags & O_CREAT && used_up() && below(path) && access(path, F_OK)) REFUSE; \
    return real(path, flags, mode); }
OPEN(open)
OPEN(open64)
"""


def mount(*words: str) -> None:
    if subprocess.run(["mount", *words], capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a file system here")


@contextlib.contextmanager
def file_system(folder: Path, options: str) -> Iterator[Path]:
    """A small file system of its own."""
    folder.mkdir()
    mount("-t", "tmpfs", "-o", options, "tmpfs", str(folder))
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with file_system(tmp_path / "disk", "size=16m") as folder:
        yield folder


class Space:
    """Of a disk that becomes full, to the last byte."""

    options = "size=16m"

    def __init__(self, disk: Path) -> None:
        self.disk, self.environment = disk, environment()

    def use_up(self) -> None:
        size = 2**20
        with (self.disk / "filler").open("wb", buffering=0) as file:
            while size:
                try:
                    if file.write(bytes(size)) < size:
                        size //= 2
                except OSError:
                    size //= 2

    def free(self) -> None:
        (self.disk / "filler").unlink()


class Inodes(Space):
    """Of a disk on which no file can be created any more."""

    options = f"size=64m,nr_inodes={INODES}"

    def use_up(self) -> None:
        (self.disk / "files").mkdir()
        with contextlib.suppress(OSError):
            for number in range(2 * INODES):
                (self.disk / "files" / str(number)).touch()

    def free(self) -> None:
        shutil.rmtree(self.disk / "files")


class Quota(Space):
    """Of a user, who can neither write nor create files, while others can."""

    options = "size=64m"

    def __init__(self, disk: Path) -> None:
        super().__init__(disk)
        if shutil.which("cc") is None:
            pytest.skip("needs a C compiler")
        folder = disk.parent / "quota"
        folder.mkdir()
        (folder / "quota.c").write_text(QUOTA)
        library = folder / "quota.so"
        subprocess.run(["cc", "-shared", "-fPIC", "-o", library, folder / "quota.c", "-ldl"], check=True)
        self.flag = folder / "flag"
        self.environment |= {"LD_PRELOAD": str(library), "QUOTA_FLAG": str(self.flag), "QUOTA_FOLDER": str(disk)}

    def use_up(self) -> None:
        self.flag.touch()

    def free(self) -> None:
        self.flag.unlink()


SAID = {Space: "No space left on device", Inodes: "No space left on device", Quota: "Disk quota exceeded"}


@pytest.mark.parametrize("where", ["run directory", "temporary folder"])
@pytest.mark.parametrize("kind", [Space, Inodes, Quota])
@pytest.mark.parametrize("after", [0, 2])
def test_a_disk_that_becomes_full_ends_the_run_and_no_trial(
    after: int, kind: type[Space], where: str, tmp_path: Path, counts: Counts
) -> None:
    with file_system(tmp_path / "disk", kind.options) as disk:
        full, folder = kind(disk), disk
        if where == "temporary folder":
            folder = tmp_path / "run-folder"
            folder.mkdir()
            full.environment["TMPDIR"] = str(disk)
        process = Process(folder, *WORDS, output=tmp_path, env=full.environment)
        process.until(lambda: ended(process.run) >= after and list(process.run.glob("trials/*")))
        full.use_up()
        # A run may do without new temporary files.
        assert process.end() == 2 or (where == "temporary folder" and states(process.run) == ALL), process.said
        kept = finished(process.run)
        begun = Process(folder, "--resume", "run", output=tmp_path, env=full.environment)
        assert begun.end() == 2 or (where == "temporary folder" and states(process.run) == ALL), begun.said
        full.free()
        for failed in (process, begun):
            for line in errors(failed.said):
                assert SAID[kind] in line
                assert "continue with --resume" in line or failed is begun
        again = Process(folder, "--resume", "run", output=tmp_path, env=full.environment)
        assert again.end() == 0, again.said
        assert states(process.run) == ALL
        found = finished(process.run)
        assert {number: found[number] for number in kept} == kept
        counts.add("faults injected", 2)


@pytest.mark.parametrize("inodes", [2, 4, 8])
def test_a_temporary_folder_that_is_full_from_the_start(inodes: int, tmp_path: Path, counts: Counts) -> None:
    """It is one line, which advises to resume only a run that has begun."""
    with file_system(tmp_path / "disk", f"size=1m,nr_inodes={inodes}") as disk:
        process = Process(tmp_path, *WORDS, env={**environment(), "TMPDIR": str(disk)})
        assert process.end() == 2, process.said
        (line,) = errors(process.said)
        assert "No space left on device" in line
        assert ("--resume" in line) == (process.run / "config.yaml").exists()
        counts.add("faults injected")


def test_a_run_directory_that_is_read_only(disk: Path, tmp_path: Path, counts: Counts) -> None:
    process = Process(disk, *WORDS, output=tmp_path)
    process.until(lambda: ended(process.run) >= 1)
    process.kill()
    assert process.left(10) == []  # a disk to which somebody writes cannot be made read-only
    journal = (process.run / "study.journal").read_bytes()
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    try:
        refused = Process(tmp_path, "--resume", str(process.run))
        assert refused.end() == 2, refused.said
        assert errors(refused.said) == [
            f"error: cannot write to the run directory '{process.run}': Read-only file system"
        ]
        (tmp_path / "elsewhere").mkdir()
        new = Process(tmp_path / "elsewhere", *WORDS, "--run-dir", str(disk / "new"))
        assert new.end() == 2, new.said
        assert errors(new.said) == [f"error: cannot create the run directory '{disk / 'new'}': Read-only file system"]
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    assert (process.run / "study.journal").read_bytes() == journal
    again = Process(disk, "--resume", "run", output=tmp_path)
    assert again.end() == 0, again.said
    assert states(process.run) == ALL
    counts.add("faults injected", 2)
