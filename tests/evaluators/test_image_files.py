"""Image files of every mode and depth: their pixels are those that a formula gives, in data sets and in ``predict``."""

from __future__ import annotations

import logging
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image
from torch import nn

import slimsearch
from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import DeployedModel, Predictor
from slimsearch.evaluators.datasets import load_dataset, read_header, read_image

Array = np.ndarray[Any, np.dtype[Any]]
SHAPES = array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9)
FEW = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


def over_white(color: Array, alpha: Array) -> Array:
    return np.rint((color * (alpha / 255.0)) + 255 * (1 - alpha / 255.0))


# From values, (H, W, 4) uint16, to the image to write, what is read back, and options of writing.
def bilevel(values: Array) -> tuple[Image.Image, Array, dict[str, Any]]:
    bits = values[..., 0] > 32767
    return Image.fromarray(bits), bits * 255.0, {}


def gray(values: Array) -> tuple[Image.Image, Array, dict[str, Any]]:
    pixels = (values[..., 0] >> 8).astype(np.uint8)
    return Image.fromarray(pixels), pixels, {}


def gray_with_key(values: Array) -> tuple[Image.Image, Array, dict[str, Any]]:
    pixels = (values[..., 0] >> 8).astype(np.uint8)
    key = int(pixels[0, 0])
    return Image.fromarray(pixels), np.where(pixels == key, 255, pixels), {"transparency": key}


def gray_with_alpha(values: Array) -> tuple[Image.Image, Array, dict[str, Any]]:
    pixels = (values[..., :2] >> 8).astype(np.uint8)
    return Image.fromarray(pixels), over_white(pixels[..., 0], pixels[..., 1]), {}


def sixteen_bits(values: Array) -> tuple[Image.Image, Array, dict[str, Any]]:
    return Image.fromarray(values[..., 0].copy()), values[..., 0] / 257, {}


def thirty_two_bits(values: Array) -> tuple[Image.Image, Array, dict[str, Any]]:
    return Image.fromarray(values[..., 0].astype(np.int32)), values[..., 0] / 257, {}


def floats(values: Array) -> tuple[Image.Image, Array, dict[str, Any]]:
    pixels = values[..., 0].astype(np.float32) / 65535
    return Image.fromarray(pixels), pixels * 255, {}


def rgb(values: Array) -> tuple[Image.Image, Array, dict[str, Any]]:
    pixels = (values[..., :3] >> 8).astype(np.uint8)
    return Image.fromarray(pixels), pixels, {}


def rgb_with_key(values: Array) -> tuple[Image.Image, Array, dict[str, Any]]:
    pixels = (values[..., :3] >> 8).astype(np.uint8)
    key = pixels[0, 0]
    expected = np.where((pixels == key).all(axis=-1, keepdims=True), 255, pixels)
    return Image.fromarray(pixels), expected, {"transparency": tuple(map(int, key))}


def rgb_with_alpha(values: Array) -> tuple[Image.Image, Array, dict[str, Any]]:
    pixels = (values >> 8).astype(np.uint8)
    return Image.fromarray(pixels), over_white(pixels[..., :3], pixels[..., 3:]), {}


def palette(values: Array) -> tuple[Image.Image, Array, dict[str, Any]]:
    indices = (values[..., 0] % 4).astype(np.uint8)
    colors = np.array([[0, 0, 0], [200, 10, 30], [40, 250, 60], [70, 80, 90]], np.uint8)
    image = Image.fromarray(indices, mode="P")
    image.putpalette(colors.tobytes())
    return image, colors[indices], {}


def palette_with_key(values: Array) -> tuple[Image.Image, Array, dict[str, Any]]:
    image, expected, _ = palette(values)
    key = int(np.asarray(image)[0, 0])
    return image, np.where((np.asarray(image) == key)[..., None], 255, expected), {"transparency": key}


def palette_with_alphas(values: Array) -> tuple[Image.Image, Array, dict[str, Any]]:
    image, expected, _ = palette(values)
    alphas = np.array([0, 100, 200, 255], np.uint8)
    return image, over_white(expected, alphas[np.asarray(image)][..., None]), {"transparency": alphas.tobytes()}


def cmyk(values: Array) -> tuple[Image.Image, Array, dict[str, Any]]:
    pixels = (values >> 8).astype(np.uint8)
    black = 255.0 - pixels[..., 3:]
    return Image.fromarray(pixels, mode="CMYK"), (255.0 - pixels[..., :3]) * black / 255, {}


KINDS: list[tuple[Callable[[Array], tuple[Image.Image, Array, dict[str, Any]]], list[str]]] = [
    (bilevel, ["png", "tif"]), (gray, ["png", "tif", "bmp", "pgm"]), (gray_with_key, ["png"]),
    (gray_with_alpha, ["png", "tif"]), (sixteen_bits, ["png", "tif", "pgm"]), (thirty_two_bits, ["tif"]),
    (floats, ["tif"]), (rgb, ["png", "tif", "bmp", "ppm"]), (rgb_with_key, ["png"]), (rgb_with_alpha, ["png", "tif"]),
    (palette, ["png", "gif", "tif"]), (palette_with_key, ["png", "gif"]), (palette_with_alphas, ["png"]),
    (cmyk, ["tif"]),
]  # fmt: skip
UPRIGHT: dict[int, Callable[[Array], Array]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}
"""From the stored image to the upright one, by EXIF orientation."""


@FEW
@given(
    st.sampled_from([(make, ending) for make, endings in KINDS for ending in endings]),
    st.sampled_from(sorted(UPRIGHT)),
    SHAPES.flatmap(lambda shape: arrays(np.uint16, (*shape, 4))),
)
def test_pixels_are_what_the_formula_gives(
    tmp_path_factory: pytest.TempPathFactory, kind: tuple[Any, str], orientation: int, values: Array
) -> None:
    make, ending = kind
    image, expected, options = make(values)
    if ending in ("png", "tif"):
        exif = Image.Exif()
        exif[0x0112] = orientation
        options["exif"] = exif
        expected = UPRIGHT[orientation](expected)
    file = tmp_path_factory.getbasetemp() / f"image.{ending}"
    image.save(file, **options)
    found = read_image(file)
    assert found.dtype == np.uint8
    assert found.shape == expected.shape
    assert np.abs(found - expected.astype(float)).max() <= 1
    in_color = read_image(file, channels=3)
    assert np.array_equal(in_color, found if found.ndim == 3 else np.stack([found] * 3, axis=-1))


def png(depth: int, color: int, row: bytes, key: tuple[int, ...]) -> bytes:
    """A PNG file of two pixels, of a depth that Pillow does not write, with one transparent color."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", 2, 1, depth, color, 0, 0, 0)),
        *([(b"tRNS", struct.pack(f">{len(key)}H", *key))] if key else []),
        (b"IDAT", zlib.compress(b"\0" + row)), (b"IEND", b""),
    ]  # fmt: skip
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (png(1, 0, b"\x80", (0,)), [[255, 255]]),
        (png(2, 0, b"\x90", (2,)), [[255, 85]]),
        (png(4, 0, b"\x3a", (3,)), [[255, 170]]),
        (png(16, 0, b"\x80\x00\x80\x01", (0x8000,)), [[255, 128]]),
        (png(16, 2, b"\x80\x00" * 3 + b"\x10\x00" * 3, (0x8000,) * 3), [[[255] * 3, [16] * 3]]),
    ],
)
def test_a_transparent_color_at_other_depths(content: bytes, expected: list[Any], tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(content)
    assert read_image(tmp_path / "x.png").tolist() == expected


@pytest.mark.parametrize("ending", ["jpg", "jfif", "webp", "jp2"])
def test_formats_with_loss(ending: str, tmp_path: Path) -> None:
    pixels = np.tile(np.linspace(0, 255, 32, dtype=np.uint8)[:, None, None], (1, 32, 3))
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {} if ending == "jp2" else {"exif": exif}
    Image.fromarray(pixels).save(tmp_path / f"x.{ending}", quality=95, **options)
    expected = pixels if ending == "jp2" else np.rot90(pixels, -1)
    assert np.abs(read_image(tmp_path / f"x.{ending}") - expected.astype(float)).mean() < 4


def test_a_damaged_orientation_is_none(tmp_path: Path) -> None:
    Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4)).save(tmp_path / "x.png", exif=b"Exif\0\0MM\0*\xff\xff")
    assert read_image(tmp_path / "x.png").shape == (3, 4)


def folder_of(tmp_path: Path, make: Callable[[int], Image.Image], ending: str = "png", **options: Any) -> Path:
    """Two classes of eight images."""
    for label in ("a", "b"):
        (tmp_path / "images" / label).mkdir(parents=True)
    for number in range(16):
        make(number).save(tmp_path / "images" / "ab"[number % 2] / f"{number}.{ending}", **options)
    return tmp_path / "images"


@pytest.mark.parametrize("bits", [8, 9, 10, 12, 14, 15, 16])
@pytest.mark.parametrize("ending", ["png", "tif"])
def test_depths_of_cameras(bits: int, ending: str, tmp_path: Path, rng: np.random.Generator) -> None:
    values = rng.integers(0, 2**bits, (16, 16, 16)).astype(np.uint16)
    data = load_dataset(folder_of(tmp_path, lambda number: Image.fromarray(values[number]), ending))
    assert len(np.unique(data.train.inputs)) >= 2 ** min(bits, 8) / (4 if bits % 2 else 1) * 0.9
    assert data.white == 2 ** (bits + bits % 2) - 1
    assert data.train.inputs.max() >= 60


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        (np.full((4, 4), 1.5, np.float32), r"floats have to be in \[0, 1\]"),
        (np.full((4, 4), np.nan, np.float32), r"floats have to be in \[0, 1\]"),
        (np.full((4, 4), -0.5, np.float32), r"floats have to be in \[0, 1\]"),
        (np.full((4, 4), -7, np.int32), r"values from -7 to -7"),
    ],
)
def test_values_that_would_be_clipped(pixels: Array, said: str, tmp_path: Path) -> None:
    with pytest.raises(SlimsearchError, match=rf"cannot read the image '.*\.tif'.*{said}"):
        load_dataset(folder_of(tmp_path, lambda number: Image.fromarray(pixels), "tif"))


def test_colors_that_are_not_read(tmp_path: Path) -> None:
    with pytest.raises(SlimsearchError, match="LAB"):
        load_dataset(folder_of(tmp_path, lambda number: Image.new("LAB", (4, 4)), "tif"))


@pytest.mark.parametrize("value", [0, 7, 255])
def test_images_of_one_value(value: int, tmp_path: Path) -> None:
    with pytest.raises(SlimsearchError, match=f"every pixel .* is {value}"):
        load_dataset(folder_of(tmp_path, lambda number: Image.new("L", (4, 4), value)))
    with pytest.raises(SlimsearchError, match=f"every pixel .* is {value}"):
        load_dataset((np.full((16, 4, 4), value, np.uint8), np.arange(16) % 2))


@pytest.mark.parametrize("ending", ["gif", "tif", "png", "webp"])
def test_further_frames_are_counted(
    ending: str, tmp_path: Path, rng: np.random.Generator, caplog: pytest.LogCaptureFixture
) -> None:
    frames = [Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)) for _ in range(18)]
    folder = folder_of(tmp_path, lambda number: frames[number], ending, save_all=True, append_images=frames[16:])
    load_dataset(folder)
    assert "16 images have several frames" in caplog.text


def twelve_bits(number: int) -> Image.Image:
    return Image.fromarray((np.random.default_rng(number).integers(0, 4096, (8, 8))).astype(np.uint16))


def transparent(number: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (8, 8, 4), dtype=np.uint8))


def turned(number: int) -> Image.Image:
    image = Image.fromarray(np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8))
    image.getexif()[0x0112] = 6
    return image


@pytest.mark.parametrize("make", [twelve_bits, transparent, turned])
def test_predict_reads_images_as_the_data_set_does(make: Callable[[int], Image.Image], tmp_path: Path) -> None:
    folder = folder_of(tmp_path, lambda number: make(number), exif=make(0).getexif())
    data = load_dataset(folder)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64 * data.input_shape[0], 2))
    file = slimsearch.export(network, tmp_path / "model.onnx", data)
    files = sorted(folder.rglob("*.png"))
    named = [next(iter(prediction.values)) for prediction in Predictor(file).images(files)]
    expected = {}
    for split in (data.train, data.validation, data.test):
        assert split is not None
        predicted = DeployedModel(file).predict(data, split)
        expected |= {image.tobytes(): data.classes[label] for image, label in zip(split.inputs, predicted, strict=True)}
    for path, name in zip(files, named, strict=True):
        pixels = read_image(path, white=data.white)
        pixels = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
        assert expected[np.ascontiguousarray(pixels).tobytes()] == name


def test_predict_refuses_values_above_the_white_of_its_data_set(tmp_path: Path) -> None:
    data = load_dataset(folder_of(tmp_path, twelve_bits))
    file = slimsearch.export(nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), tmp_path / "model.onnx", data)
    Image.fromarray(np.full((8, 8), 60000, np.uint16)).save(tmp_path / "bright.png")
    (prediction,) = Predictor(file).images([tmp_path / "bright.png"])
    assert prediction.error is not None
    assert "4095" in prediction.error


def tiff(values: Array, photometric: int, order: str) -> bytes:
    """A TIFF file, (H, W) or (H, W, 3), of numbers as they are in memory, of kinds that Pillow does not write."""
    height, width = values.shape[:2]
    data = values.astype(values.dtype.newbyteorder(order)).tobytes()
    bits, samples = 8 * values.dtype.itemsize, values[0, 0].size
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    end = 10 + 12 * 10 + 4
    entries = [
        (256, 4, width), (257, 4, height), (258, 3, bits), (259, 3, 1), (262, 3, photometric),
        (273, 4, end + 8), (277, 3, samples), (278, 4, height), (279, 4, len(data)), (339, 3, kind),
    ]  # fmt: skip
    found = (b"II" if order == "<" else b"MM") + struct.pack(order + "HIH", 42, 8, len(entries))
    for tag, size, value in entries:
        packed = struct.pack(order + ("HH" if size == 3 else "I"), *([value, 0] if size == 3 else [value]))
        if samples > 1 and tag == 258:
            found += struct.pack(order + "HHII", tag, size, samples, end)
        else:
            found += struct.pack(order + "HHI", tag, size, 1) + packed
    return found + bytes(4) + struct.pack(order + "HHHH", *[bits] * 3, 0) + data


@FEW
@given(
    st.sampled_from("<>"), st.booleans(), st.sampled_from(["u1", "u2", "f4"]),
    SHAPES.flatmap(lambda shape: arrays(np.uint16, shape)),
)  # fmt: skip
def test_tiff_files_whose_lowest_value_is_white(
    tmp_path_factory: pytest.TempPathFactory, order: str, inverted: bool, kind: str, values: Array
) -> None:
    pixels = values / 65535 if kind == "f4" else values >> (8 if kind == "u1" else 0)
    top = {"u1": 255, "u2": 65535, "f4": 1}[kind]
    file = tmp_path_factory.getbasetemp() / "inverted.tif"
    file.write_bytes(tiff((top - pixels if inverted else pixels).astype(kind), 0 if inverted else 1, order))
    if (inverted, kind, order) == (True, "u2", ">"):  # Pillow knows no such file
        with pytest.raises(SlimsearchError, match="cannot read"):
            read_image(file)
        return
    assert np.abs(read_image(file) - pixels * (255 / top)).max() <= 1


@pytest.mark.parametrize("kind", ["i1", "i2", "f8"])
def test_numbers_that_are_not_read(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "x.tif"
    file.write_bytes(tiff(np.array([[-1, 1]]).astype(kind), 1, "<"))
    with pytest.raises(SlimsearchError, match=r"cannot read the image '.*x\.tif': "):
        read_image(file)


def test_gray_with_alpha_in_sixteen_bits(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(png(16, 4, struct.pack(">4H", 0x8000, 0xFFFF, 0, 0), ()))
    assert read_image(tmp_path / "x.png").tolist() == [[128, 255]]
    assert read_header(tmp_path / "x.png").is_gray


@pytest.mark.parametrize("bits", [10, 12])
def test_colors_with_less_than_their_sixteen_bits_are_reported(bits: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(bits)
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for number in range(8):
            pixels = rng.integers(0, 2**bits, (8, 8, 3)).astype(np.uint16)
            (tmp_path / label / f"{number}.tif").write_bytes(tiff(pixels, 2, "<"))
    assert f"only {2 ** (bits - 8)} values of 256" in load_dataset(tmp_path).notes[0]


def test_dark_images_with_a_bright_spot_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def make(number: int) -> Image.Image:
        pixels = np.asarray(twelve_bits(number)).copy()
        pixels[0, 0] = 65535
        return Image.fromarray(pixels)

    with caplog.at_level(logging.WARNING):
        load_dataset(folder_of(tmp_path, make))
    assert "values of 256" in caplog.text
