"""Image files that Pillow does not write: PNG and TIFF of any depth, number of bands and byte order."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

LETTERS = {3: "H", 4: "I", 16: "Q"}


def chunk(kind: bytes, body: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(
    values: npt.ArrayLike, colour: int, bits: int, *, before: bytes = b"", behind: bytes = b"", palette: bytes = b""
) -> bytes:
    """A PNG.

    Args:
        values: whole numbers [H, W] or [H, W, C].
        colour: type of its header: 0 grey, 2 RGB, 3 palette, 4 grey with alpha, 6 RGB with alpha.
        bits: of a sample.
        before: chunks before the pixels.
        behind: chunks behind them.
        palette: of colour type 3.
    """
    array = np.asarray(values)
    height, width = array.shape[:2]
    flat = array.reshape(height, -1)
    if bits == 16:
        rows = [row.astype(">u2").tobytes() for row in flat]
    else:
        split = (flat[..., None] >> np.arange(bits - 1, -1, -1)) & 1
        rows = [np.packbits(row.ravel().astype(np.uint8)).tobytes() for row in split]
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows), 9))
    table = chunk(b"PLTE", palette) if palette else b""
    return b"\x89PNG\r\n\x1a\n" + head + table + before + pixels + behind + chunk(b"IEND", b"")


def plain_png(width: int, height: int) -> bytes:
    """A black RGB PNG, made without its pixels in memory."""
    packer, row = zlib.compressobj(9), bytes(1 + 3 * width)
    pixels = b"".join([*(packer.compress(row) for _ in range(height)), packer.flush()])
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def tiff(
    pages: list[npt.NDArray[Any]] | npt.NDArray[Any],
    photometric: int | None = 1,
    *,
    order: str = "<",
    big: bool = False,
    planar: bool = False,
    bits: int | None = None,
    tags: dict[int, list[int]] | None = None,
    subfiles: list[int] | None = None,
) -> bytes:
    """An uncompressed TIFF.

    Args:
        pages: [H, W] or [H, W, C] of any number; several are pages.
        photometric: PhotometricInterpretation.
        order: of the bytes, ``<`` or ``>``.
        big: BigTIFF.
        planar: band after band.
        bits: of a sample, where it is less than a byte.
        tags: others, or other values, by number.
        subfiles: NewSubfileType of each page; the first is in colour, others may be grey.
    """
    pages = pages if isinstance(pages, list) else [pages]
    offset = "Q" if big else "I"
    magic = (b"II" if order == "<" else b"MM") + struct.pack(order + "H", 43 if big else 42)
    head = magic + (struct.pack(order + "HH", 8, 0) if big else b"")
    content = bytearray(head + struct.pack(order + offset, 0))
    link = len(head)
    for page, array in enumerate(pages):
        height, width = array.shape[:2]
        bands = 1 if array.ndim == 2 else array.shape[2]
        stored = array.transpose(2, 0, 1) if planar else array
        if bits is None:
            data = stored.astype(array.dtype.newbyteorder(order)).tobytes()
        else:
            split = (array[..., None] >> np.arange(bits - 1, -1, -1)) & 1
            data = b"".join(np.packbits(row.ravel().astype(np.uint8)).tobytes() for row in split)
        kind = {"u": 1, "i": 2, "f": 3}[array.dtype.kind]
        strips = bands if planar else 1
        place = len(content)
        content += data
        entries: dict[int, list[int]] = {
            256: [width], 257: [height], 258: [bits or 8 * array.itemsize] * bands, 259: [1],
            273: [place + i * len(data) // strips for i in range(strips)], 277: [bands], 278: [height],
            279: [len(data) // strips] * strips, 284: [2 if planar else 1], 339: [kind] * bands,
        }  # fmt: skip
        if photometric is not None:
            entries[262] = [photometric if array.ndim == pages[0].ndim else 1]
        if subfiles is not None:
            entries[254] = [subfiles[page]]
        content, link = _directory(content, link, entries | (tags or {}), order, offset)
    return bytes(content)


def _directory(
    content: bytearray, link: int, entries: dict[int, list[int]], order: str, offset: str
) -> tuple[bytearray, int]:
    """Append a directory, and point to it from `link`; returns where the next one is pointed to from."""
    kind = 16 if offset == "Q" else 4
    fields = []
    for tag, values in sorted(entries.items()):
        number = 3 if tag not in (273, 279) else kind
        packed = struct.pack(f"{order}{len(values)}{LETTERS[number]}", *values)
        if len(packed) > struct.calcsize(offset):
            place = len(content)
            content += packed
            packed = struct.pack(order + offset, place)
        size = struct.calcsize(offset)
        fields.append(struct.pack(f"{order}HH{offset}", tag, number, len(values)) + packed.ljust(size, b"\0"))
    struct.pack_into(order + offset, content, link, len(content))
    content += struct.pack(order + ("Q" if offset == "Q" else "H"), len(fields)) + b"".join(fields)
    content += struct.pack(order + offset, 0)
    return content, len(content) - struct.calcsize(offset)
