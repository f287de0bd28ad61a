"""Scripts that are called with a mistake."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

Mistake = Callable[[Callable[[Sequence[str]], int], Sequence[str]], str]


@pytest.fixture
def mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Mistake:
    """Calls the main function of a script in `tmp_path`; returns the one line with its mistake."""
    monkeypatch.chdir(tmp_path)

    def called(main: Callable[[Sequence[str]], int], words: Sequence[str]) -> str:
        try:
            code = main(words)
        except SystemExit as error:  # by argparse
            code = int(error.code or 0)
        assert code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ")
        assert not (tmp_path / "runs").exists()
        return line.removeprefix("error: ")

    return called
