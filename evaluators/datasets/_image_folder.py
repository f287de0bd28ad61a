"""Image folders: their layout, the files that are read and those that are skipped, and all images in one array."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from slimsearch.errors import SlimsearchError, escaped, reason
from slimsearch.evaluators.datasets._dataset import WHITE, Raw, Split
from slimsearch.evaluators.datasets._image_files import (
    ImageHeader,
    highest_value,
    image_endings,
    read_header,
    read_image,
)
from slimsearch.evaluators.datasets._memory import memory_for
from slimsearch.evaluators.datasets._stored import Inputs, Put, StoredInputs, find, is_large, key_of, select, store
from slimsearch.progress import counted

_log = logging.getLogger(__name__)

_PARTS = {
    "train": "training", "training": "training",
    "val": "validation", "valid": "validation", "validation": "validation", "dev": "validation",
    "eval": "validation", "evaluation": "validation", "test": "test", "testing": "test",
}  # fmt: skip
"""Splits by the lower-case names of their folders."""

# In names of split folders: train2017, test_set, val-images.
_SPLIT_NAME = re.compile(r"[a-z]+?(?=(?:[\W_]|\d|set|data|images)*$)")
_EXPECTED = "train/<class>/*, val/<class>/* and test/<class>/*, of which only train is needed, or <class>/*"
# What operating systems and file servers leave behind, beside names that begin with a dot.
_SYSTEM = frozenset(
    ("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "@eadir", "$recycle.bin", "lost+found")
)  # fmt: skip
_LISTED_ENDINGS = 8
_FEW_LEVELS = 32

T = TypeVar("T")


def image_files(folder: Path) -> tuple[list[Path], Counter[str]]:
    """The image files below a folder, sorted, and the number of its other files by ending.

    Hidden files and those of operating systems are in neither. Links to folders are not followed.

    Raises:
        SlimsearchError: a folder cannot be read.
    """
    images: list[Path] = []
    skipped: Counter[str] = Counter()
    for directory, folders, files in os.walk(folder, onerror=_refuse):
        folders[:] = filter(_visible, folders)
        skipped["linked folder"] += sum(Path(directory, name).is_symlink() for name in folders)
        for path in (Path(directory, name) for name in files if _visible(name)):
            if not path.is_file():
                skipped["not a file"] += 1
            elif path.suffix.lower() in image_endings():
                images.append(path)
            else:
                skipped[path.suffix.lower() or "no ending"] += 1
    return sorted(images), +skipped


def skipped_files(skipped: Counter[str]) -> str:
    """A line such as "36 files skipped: .heic 30, .txt 6"."""
    listed = [f"{escaped(ending)} {count:,}" for ending, count in skipped.most_common(_LISTED_ENDINGS)]
    if len(skipped) > _LISTED_ENDINGS:
        listed.append(f"and {len(skipped) - _LISTED_ENDINGS} other endings")
    total = skipped.total()
    return f"{total:,} file{'s' if total != 1 else ''} skipped: {', '.join(listed)}"


def read_folder(root: Path, image_size: tuple[int, int] | None) -> Raw:
    """Decode all images in ``<class>/*`` folders, or in such folders below ``train``, ``val`` and ``test``.

    Images are grayscale if all of them are, else RGB.

    Args:
        root: the folder.
        image_size: (H, W) that all images are resized to; None if they already have one size.

    Raises:
        SlimsearchError: there are no images, one is damaged, splits have different classes, the images have different
            sizes, or do not fit into memory.
    """
    notes = _Notes(root)
    folders = _split_folders(root, notes)
    listings = {part: _listing(root, folder) for part, folder in folders.items()}
    train = listings["training"]
    for part, listing in listings.items():
        if different := sorted(set(train.classes) ^ set(listing.classes)):
            raise SlimsearchError(
                f"data set '{root}': {folders['training'].name} and {folders[part].name} have different classes "
                f"({', '.join(different)} in only one)"
            )
    inner = _folders(folders["training"] / train.classes[0])
    if len(train.classes) == 1 and inner:
        nested = folders["training"] / train.classes[0]
        raise SlimsearchError(
            f"data set '{root}' has 1 class, '{nested.name}'; for {len(inner)} classes pass '{nested}'"
        )
    skipped = sum((listing.skipped for listing in listings.values()), Counter[str]())
    if skipped:
        notes.add(skipped_files(skipped))
    loose = sum(listing.outside for listing in listings.values())
    if loose:
        notes.add(f"{loose:,} images are not in a class folder, and skipped")
    copies = 1 if len(listings) == 3 else 2
    files = [file for listing in listings.values() for file in listing.files]
    images, white = _decode(root, files, image_size, copies, notes)
    splits, start, stored = {}, 0, isinstance(images, StoredInputs)
    for part, listing in listings.items():
        end = start + len(listing.files)
        splits[part] = Split(
            select(images, np.arange(start, end)) if stored else images[start:end],
            np.array(listing.labels, dtype=np.int64),
        )
        start = end
    return Raw(
        splits["training"].inputs, splits["training"].targets, train.classes, splits.get("test"),
        validation=splits.get("validation"), white=white, notes=tuple(notes.lines),
    )  # fmt: skip


def different_sizes(name: object, sizes: Iterable[tuple[int, int]]) -> SlimsearchError:
    """The error about images of several sizes (H, W)."""
    known = sorted(set(sizes))
    some = ", ".join(f"{width}x{height}" for height, width in known[:3]) + (", ..." if len(known) > 3 else "")
    return SlimsearchError(f"data set '{name}': images have {len(known)} different sizes ({some}); pass --image-size N")


@dataclass(frozen=True)
class _Listing:
    """Files of one split.

    Attributes:
        classes: names, sorted.
        files, labels: the images and the positions of their classes.
        skipped: number of other files by ending.
        outside: number of images beside the class folders.
    """

    classes: tuple[str, ...]
    files: list[Path]
    labels: list[int]
    skipped: Counter[str]
    outside: int


class _Notes:
    """Lines about what was skipped or assumed, which are logged at once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.lines: list[str] = []

    def add(self, line: str) -> None:
        self.lines.append(escaped(line))
        _log.warning("data set '%s': %s", escaped(str(self._root)), self.lines[-1])


def _split_folders(root: Path, notes: _Notes) -> dict[str, Path]:
    """The folder of each split; `root` itself is that of the training images if it has class folders."""
    folders = _folders(root)
    named = {folder: part for folder in folders if (part := _part(folder.name)) is not None}
    # A class may be called "train" or "valid": then it has images rather than class folders.
    with_classes = [folder for folder in named if _folders(folder)]
    if not any(named[folder] == "training" for folder in with_classes):
        if with_classes or (folders and len(named) == len(folders)):
            names = ", ".join(f"{folder.name}/" for folder in with_classes or folders)
            raise SlimsearchError(
                f"data set '{root}' has {names}, but no train/ with class folders; expected {_EXPECTED}"
            )
        _refuse_split_names(root, folders)
        return {"training": root}
    found: dict[str, Path] = {}
    for part in ("training", "validation", "test"):
        of_part = [folder for folder in named if named[folder] == part]
        if len(of_part) > 1:
            names = " and ".join(f"{folder.name}/" for folder in of_part)
            raise SlimsearchError(f"data set '{root}' has {names}, both for {part} images; remove one, or join them")
        if of_part:
            found[part] = of_part[0]
    if unused := [folder.name for folder in folders if folder not in named]:
        notes.add(f"folders beside {found['training'].name}/ are not read: {', '.join(unused)}")
    return found


def _part(name: str) -> str | None:
    """The split that a folder is named after, such as train2017 or test_set."""
    found = _SPLIT_NAME.match(name.lower())
    return _PARTS.get(found[0]) if found is not None else None


def _refuse_split_names(root: Path, folders: Sequence[Path]) -> None:
    """Refuse to take folders like seg_train/ and seg_test/ for classes; classes have images rather than folders.

    Raises:
        SlimsearchError: there are such folders.
    """
    found = {
        folder.name: _PARTS[word]
        for folder in folders
        for word in re.findall("[a-z]+", folder.name.lower())
        if word in _PARTS and _folders(folder)
    }
    if "training" in found.values() and len(set(found.values())) > 1:
        names = ", ".join(f"{name}/" for name in found)
        raise SlimsearchError(f"data set '{root}' has {names}, which look like splits; expected {_EXPECTED}")


def _listing(root: Path, folder: Path) -> _Listing:
    folders = _folders(folder)
    for name in (entry.name for entry in folders):
        if name != name.encode("utf-8", "ignore").decode():
            raise SlimsearchError(f"data set '{root}': the name of class folder {name!r} is not UTF-8")
    if not folders:
        where = "" if folder == root else f": '{folder.name}'"
        raise SlimsearchError(f"data set '{root}'{where} has no class folders; expected {_EXPECTED}")
    files: list[Path] = []
    labels: list[int] = []
    skipped: Counter[str] = Counter()
    for label, class_folder in enumerate(folders):
        images, others = image_files(class_folder)
        if not images:
            reason = skipped_files(others) if others else ", ".join(sorted(image_endings()))
            raise SlimsearchError(f"data set: the folder '{class_folder}' has no images ({reason})")
        files += images
        labels += [label] * len(images)
        skipped += others
    outside = sum(entry.suffix.lower() in image_endings() and entry.is_file() for entry in _entries(folder))
    return _Listing(tuple(entry.name for entry in folders), files, labels, skipped, outside)


def _folders(root: Path) -> list[Path]:
    return [entry for entry in _entries(root) if entry.is_dir()]


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(entry for entry in folder.iterdir() if _visible(entry.name))
    except OSError as error:
        _refuse(error)
        raise


def _visible(name: str) -> bool:
    return not name.startswith(".") and name.lower() not in _SYSTEM


def _refuse(error: OSError) -> None:
    raise SlimsearchError(f"cannot read the folder '{error.filename}': {error.strerror}") from error


def _decode(
    root: Path, files: Sequence[Path], image_size: tuple[int, int] | None, copies: int, notes: _Notes
) -> tuple[Inputs, int]:
    """All images, (N, C, H, W) uint8, and the value of white in those with more than 8 bits.

    Many images are decoded into the cache, once for all runs on files of the same names, sizes and dates.
    """
    key = key_of("images", [_state(root, file) for file in files], image_size)
    known = find(key)
    if known is None:
        headers = list(counted("reading image headers", _in_threads(read_header, files), len(files)))
        size = _size(root, headers) if image_size is None else image_size
        channels = 1 if all(header.is_gray for header in headers) else 3
        shape = (len(files), channels, *size)

        def fill(put: Put) -> dict[str, Any]:
            return _fill(files, headers, shape, image_size, put)

        if is_large(shape, np.uint8):
            known = store(key, str(root), shape, np.uint8, fill)
        else:
            with memory_for(str(root), len(files), shape[1:], copies):
                images = np.empty(shape, dtype=np.uint8)
                facts = fill(lambda index, image: images.__setitem__(slice(index, index + 1), image))
    found, facts = known if known is not None else (images, facts)
    for line in facts["notes"]:
        notes.add(line)
    return found, facts["white"]


def _state(root: Path, file: Path) -> tuple[str, int, int]:
    """Name, size and date of an image file."""
    try:
        state = file.stat()
    except OSError as error:
        raise SlimsearchError(f"data set: cannot read the image '{file}': {reason(error)}") from error
    return str(file.relative_to(root)), state.st_size, state.st_mtime_ns


def _fill(
    files: Sequence[Path], headers: Sequence[ImageHeader], shape: tuple[int, ...], image_size: tuple[int, int] | None,
    put: Put,
) -> dict[str, Any]:  # fmt: skip
    """Decode all images, and give the value of white and lines about what was assumed."""
    channels = shape[1]
    white = _white([file for file, header in zip(files, headers, strict=True) if header.is_deep])
    lines = []
    animated = sum(header.frames > 1 for header in headers)
    if animated:
        lines.append(f"{animated:,} images have several frames or pages, of which the first is used")
    levels = {name: np.zeros(256, dtype=bool) for name in ("is_deep", "is_deep_color")}

    def decode(index: int) -> None:
        pixels = read_image(files[index], image_size, channels, white)
        put(index, pixels[None, None] if channels == 1 else pixels.transpose(2, 0, 1)[None])
        for name, there in levels.items():
            if getattr(headers[index], name):
                there[pixels] = True

    for _ in counted("decoding images", _in_threads(decode, range(len(files))), len(files)):
        pass
    for name, top in (("is_deep", white), ("is_deep_color", WHITE)):
        if 0 < levels[name].sum() < _FEW_LEVELS:
            count = levels[name].sum()
            lines.append(f"images with more than 8 bits have only {count} values of 256 after scaling by 255/{top}")
    return {"white": white, "notes": lines}


def _size(root: Path, headers: Sequence[ImageHeader]) -> tuple[int, int]:
    sizes = {header.size for header in headers}
    if len(sizes) > 1:
        raise different_sizes(root, sizes)
    return next(iter(sizes))


def _white(files: Sequence[Path]) -> int:
    """The highest value of the least even number of bits, from 8, that all images fit in: cameras have 10, 12 or 14."""
    if not files:
        return WHITE
    bits = max(_in_threads(highest_value, files), default=0).bit_length()
    return int(2 ** max(8, bits + bits % 2)) - 1


def _in_threads(function: Callable[[Any], T], arguments: Sequence[Any]) -> Iterator[T]:
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        try:
            yield from pool.map(function, arguments)
        except SlimsearchError as error:
            raise SlimsearchError(f"data set: {error}") from error
        finally:
            pool.shutdown(cancel_futures=True)
