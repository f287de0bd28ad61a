"""Record a command in a terminal as an animated SVG, such as docs/images/run.svg. Needs pyte, a terminal emulator.

pip install pyte
python docs/record_terminal.py docs/images/run.svg slimsearch run --space mnist_cnn --dataset mnist5k --trials 12
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import select
import shlex
import struct
import sys
import termios
import time
from itertools import groupby, pairwise
from pathlib import Path
from xml.sax.saxutils import escape

import pyte

COLUMNS, ROWS = 104, 27
# Seconds: between two looks at the screen; of a frame at least and at most; of the last one; of the whole animation.
EVERY, SHORTEST, LONGEST, LAST, TOTAL = 0.25, 0.3, 0.7, 6.0, 24.0
WIDTH, HEIGHT, MARGIN, SIZE = 7.83, 17.0, 14.0, 13
COLORS = {
    "default": "#d7dce0", "black": "#3b4248", "red": "#ef7b73", "green": "#7fc489", "brown": "#e0b25c",
    "blue": "#7aa7e6", "magenta": "#c394e0", "cyan": "#6cc3c9", "white": "#f2f4f5", "brightblack": "#8b949c",
}  # fmt: skip

Line = tuple[tuple[int, str, str, bool], ...]
Frame = tuple[Line, ...]


def record(words: list[str]) -> list[tuple[float, Frame]]:
    """The different screens that a command shows, each with the second at which it appears."""
    screen = pyte.Screen(COLUMNS, ROWS)
    stream = pyte.ByteStream(screen)
    stream.feed(f"$ {shlex.join(words)}\r\n".encode())
    pid, terminal = pty.fork()
    if pid == 0:
        size = {"COLUMNS": str(COLUMNS), "LINES": str(ROWS), "TERM": "xterm-256color"}
        os.execvpe(words[0], words, {**os.environ, **size})
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    began, frames = time.monotonic(), [(0.0, _frame(screen))]
    while True:
        ready, _, _ = select.select([terminal], [], [], EVERY)
        try:
            content = os.read(terminal, 65536) if ready else b""
        except OSError:  # the command has ended
            break
        if ready and not content:
            break
        stream.feed(content)
        now, shown = time.monotonic() - began, _frame(screen)
        if shown != frames[-1][1] and now - frames[-1][0] >= EVERY:
            frames.append((now, shown))
    frames.append((time.monotonic() - began, _frame(screen)))
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0:
        sys.exit("\n".join(screen.display))
    return frames


def _frame(screen: pyte.Screen) -> Frame:
    return tuple(_line([screen.buffer[row][column] for column in range(COLUMNS)]) for row in range(ROWS))


def _line(cells: list[pyte.screens.Char]) -> Line:
    """Runs of equal style: column, text, color, whether bold."""
    runs, column = [], 0
    for (color, bold), group in groupby(cells, key=lambda cell: (cell.fg, cell.bold)):
        text = "".join(cell.data for cell in group)
        if text.strip():
            runs.append((column, text.rstrip(), color, bold))
        column += len(text)
    return tuple(runs)


def animated(frames: list[tuple[float, Frame]]) -> str:
    """The frames as an SVG that repeats, faster than they came."""
    speed = max(1.0, frames[-1][0] / TOTAL)
    shown = [frames[0]]
    for second, frame in frames[1:]:
        if (second - shown[-1][0]) / speed >= SHORTEST:
            shown.append((second, frame))
    shown[-1] = frames[-1]
    lengths = [min(LONGEST, (after - before) / speed) for (before, _), (after, _) in pairwise(shown)] + [LAST]
    total, now, shapes, rules = sum(lengths), 0.0, [], []
    lines: dict[Line, int] = {}
    for number, ((_, frame), length) in enumerate(zip(shown, lengths, strict=True)):
        begin, end = 100 * now / total, 100 * (now + length) / total
        last = number == len(shown) - 1
        rules.append(
            f"@keyframes f{number}{{0%{{visibility:{'hidden' if number else 'visible'}}}"
            f"{begin:.2f}%{{visibility:visible}}{end:.2f}%{{visibility:{'visible' if last else 'hidden'}}}}}"
            f"#f{number}{{animation:f{number} {total:.2f}s step-end infinite}}"
        )
        rows = [(row, lines.setdefault(line, len(lines))) for row, line in enumerate(frame) if line]
        uses = "".join(f'<use href="#l{line}" y="{MARGIN + row * HEIGHT:.0f}"/>' for row, line in rows)
        shapes.append(f'<g id="f{number}" visibility="hidden">{uses}</g>')
        now += length
    texts = "".join(f'<g id="l{number}">{_texts(line)}</g>' for line, number in lines.items())
    width, height = COLUMNS * WIDTH + 2 * MARGIN, ROWS * HEIGHT + 2 * MARGIN
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}"><style>text{{font:{SIZE}px ui-monospace,Menlo,Consolas,"DejaVu Sans Mono",monospace;'
        f"white-space:pre}}.b{{font-weight:700}}{''.join(rules)}</style><defs>{texts}</defs>"
        f'<rect width="100%" height="100%" rx="8" fill="#1b2025"/>{"".join(shapes)}</svg>\n'
    )


def _texts(line: Line) -> str:
    found = []
    for column, text, color, bold in line:
        fill = COLORS.get(color, f"#{color}" if len(color) == 6 else COLORS["default"])
        style = ' class="b"' if bold else ""
        found.append(
            f'<text x="{MARGIN + column * WIDTH:.1f}" y="{0.78 * HEIGHT:.1f}" fill="{fill}" '
            f'textLength="{len(text) * WIDTH:.1f}"{style}>{escape(text)}</text>'
        )
    return "".join(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("file", type=Path, help="the SVG to write")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="the command and its options")
    options = parser.parse_args()
    options.file.write_text(animated(record(options.command)), encoding="utf-8")


if __name__ == "__main__":
    main()
