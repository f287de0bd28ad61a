"""``python experiments/run.py``: the same as ``slimsearch run``, from a checkout."""

import sys
from pathlib import Path

# Python puts this file's own folder first; the packages are found one level up.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from slimsearch.cli.main import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(["run", *sys.argv[1:]], program="experiments/run.py"))
