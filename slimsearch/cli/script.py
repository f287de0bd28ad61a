"""What every script of experiments/ does with its options and with a user's mistakes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import NoReturn

from slimsearch.errors import SlimsearchError


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, and shows defaults."""

    def __init__(self, description: str) -> None:
        super().__init__(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)

    def error(self, message: str) -> NoReturn:
        print(f"error: {message}", file=sys.stderr)
        sys.exit(2)


def exit_code(run: Callable[[], None]) -> int:
    """Run a script; 0, 2 for a mistake, which is one line, or 130 after Ctrl-C."""
    try:
        run()
    except (SlimsearchError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0
