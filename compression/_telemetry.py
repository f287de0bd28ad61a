"""Nothing is told to the makers of what we are built on, unless whoever uses it asks for that.

ONNX Runtime for Linux tells Microsoft of each session since its version 1.32. It reads its environment when it is
imported, so this comes before that; a value that is there already stays.
"""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
