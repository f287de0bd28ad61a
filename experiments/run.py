"""``python experiments/run.py``: the same as ``slimsearch run``, from a checkout."""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the root of the checkout instead of this folder

from slimsearch.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["run", *sys.argv[1:]], program="experiments/run.py"))
