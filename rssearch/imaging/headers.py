"""What an image file says of its own pixels: bands, depth and meaning, from its header.

Pillow's mode is no such description. It is what Pillow makes of a file: of several bands of 16 bits it keeps the high
bytes, of five bands three, and what stands for white as 0 it turns round. Standard library alone.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import IO

READ = "images of 8 bits are read: grey, RGB or with a palette, each with or without alpha"
COLOURS = frozenset({"grey", "palette", "RGB", "grey with alpha", "RGB with alpha"})
FINE = frozenset({1, 2, 4, 8})  # bits of grey levels and of indices into a palette
LOSSY_TIFF = frozenset({6, 7, 34676, 34677, 50001})  # JPEG, old and new, SGI LogLuv, LogL, WebP
TAGS = frozenset({254, 258, 259, 262, 273, 274, 277, 324, 338, 339})  # those of a TIFF that say what its pixels are
PLACES = frozenset({33550, 33922, 34264, 34735})  # those of a GeoTIFF that say where on Earth they are
TIFF_COLOURS = {1: ("grey", 1), 2: ("RGB", 3), 3: ("palette", 1), 5: ("CMYK", 4), 8: ("CIELab", 3), 9: ("ICCLab", 3)}
IFDS = 10_000  # pictures of a TIFF that are looked at


@dataclass(frozen=True)
class Header:
    """The pixels of a file as it describes them.

    Attributes:
        format: as Pillow names it.
        bands: samples of a pixel.
        bits: of a sample, or of an index into a palette.
        colour: what the samples are; one of `COLOURS` or, for what is not read, a description.
        sample: ``unsigned``, ``signed`` or ``float``; or, for what is not read, a description.
        lossy: whether its compression changes values.
        pages: pictures in the file, where the header says it; smaller copies of the first are none.
        located: whether it is a GeoTIFF, which says where on Earth its pixels are.
        orientation: the orientation tag of a TIFF, 1 to 8; 1 is upright.
    """

    format: str
    bands: int
    bits: int
    colour: str
    sample: str = "unsigned"
    lossy: bool = False
    pages: int = 1
    located: bool = False
    orientation: int = 1

    def __str__(self) -> str:
        bands = "one band" if self.bands == 1 else f"{self.bands} bands"
        kind = "" if self.sample == "unsigned" else f", {self.sample}"
        return f"{bands} of {self.bits} bit{'s' if self.bits > 1 else ''}{kind} ({self.colour})"

    @property
    def readable(self) -> bool:
        """Whether its pixels are RGB values of 8 bits, or have a defined meaning as such."""
        single = self.colour in ("grey", "palette")
        return self.colour in COLOURS and self.sample == "unsigned" and self.bits in (FINE if single else {8})


def read_header(file: IO[bytes]) -> Header:
    """Read the header of an image file from its beginning, where the file is left.

    Args:
        file: seekable.

    Raises:
        ValueError: it is in none of the formats that are read, or its header is damaged.
        OSError: it cannot be read.
    """
    file.seek(0)
    start = file.read(32)
    if not start:
        raise ValueError("it is empty")
    for magic, (name, read) in _FORMATS.items():
        if start.startswith(magic):
            try:
                return read(file, start)
            except (struct.error, IndexError, KeyError, OverflowError):
                raise ValueError(f"its header is damaged or cut off; it begins as {name}") from None
            finally:
                file.seek(0)
    known = ", ".join(dict.fromkeys(name for name, _ in _FORMATS.values()))
    raise ValueError(f"it is no image of a known format ({known})")


def _png(_: IO[bytes], start: bytes) -> Header:
    colours = {0: ("grey", 1), 2: ("RGB", 3), 3: ("palette", 1), 4: ("grey with alpha", 2), 6: ("RGB with alpha", 4)}
    kind, bits, colour = struct.unpack(">4s8xBB", start[12:26])
    if kind != b"IHDR":
        raise struct.error
    name, bands = colours[colour]
    return Header("PNG", bands, bits, name)


def _jpeg(file: IO[bytes], _: bytes) -> Header:
    file.seek(2)
    while True:
        while (byte := file.read(1)) != b"\xff":  # Pillow skips what stands between segments as well
            if not byte:
                raise struct.error
        while (byte := file.read(1)) == b"\xff":  # fill bytes
            pass
        marker = byte[0]
        if marker in (0, 1) or 0xD0 <= marker <= 0xD8:  # these have no content
            continue
        (length,) = struct.unpack(">H", file.read(2))
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # start of frame
            bits, bands = struct.unpack(">B4xB", file.read(6))
            colour = {1: "grey", 3: "RGB", 4: "CMYK"}.get(bands, "unknown colours")
            return Header("JPEG", bands, bits, colour, lossy=True)
        file.seek(length - 2, 1)


def _bmp(_: IO[bytes], start: bytes) -> Header:
    (size,) = struct.unpack("<I", start[14:18])
    (bits,) = struct.unpack("<H", start[24:26] if size == 12 else start[28:30])
    if bits not in (1, 2, 4, 8, 16, 24, 32):
        raise struct.error
    if bits <= 8:
        return Header("BMP", 1, bits, "palette")
    return Header("BMP", 4, 8, "RGB with alpha") if bits == 32 else Header("BMP", 3, 8, "RGB")


def _webp(_: IO[bytes], start: bytes) -> Header:
    if start[8:12] != b"WEBP":
        raise struct.error
    return Header("WEBP", 3, 8, "RGB", lossy=True)  # what has no loss does not say so here


def _gif(_: IO[bytes], _start: bytes) -> Header:
    return Header("GIF", 1, 8, "palette")


def _ppm(file: IO[bytes], start: bytes) -> Header:
    kind = start[1:2]
    if kind in b"14":
        return Header("PPM", 1, 1, "grey, 0 is white")
    colour, bands = ("grey", 1) if kind in b"25" else ("RGB", 3)
    file.seek(2)
    text = file.read(4096)
    words: list[bytes] = []
    while len(words) < 3:
        text = text.lstrip()
        if text.startswith(b"#"):
            text = text.partition(b"\n")[2]
            continue
        word = text.split(maxsplit=1)[0]
        words.append(word)
        text = text[len(word) :]
    largest = int(words[2]) if words[2].isdigit() and len(words[2]) < 6 else 0
    if largest == 0:
        raise struct.error
    levels = "" if largest in (255, 65535) else f", levels 0 to {largest}"
    return Header("PPM", bands, largest.bit_length(), colour + levels)


Tags = Mapping[int, tuple[int, ...]]


def _tiff(file: IO[bytes], start: bytes) -> Header:
    order = "<" if start[:2] == b"II" else ">"
    big = start[2:4] in (b"+\0", b"\0+")
    (place,) = struct.unpack(order + "Q", start[8:16]) if big else struct.unpack(order + "I", start[4:8])
    first, place = _directory(file, order, place, big=big)
    pages = 1
    seen: set[int] = set()
    while place and place not in seen and len(seen) < IFDS:
        seen.add(place)
        tags, place = _directory(file, order, place, big=big, wanted=frozenset({254}))
        # Overviews (1) and masks of transparency (4) describe the first picture.
        pages += not tags.get(254, (0,))[0] & 5
    if 0 in first.get(273, ()) or 0 in first.get(324, ()):
        raise ValueError("it is sparse: some of its strips or tiles are not in the file")
    bands = first.get(277, (1,))[0]
    depths = set(first.get(258, (1,))[:bands])
    formats = set(first.get(339, (1,))[:bands])
    sample = {1: "unsigned", 2: "signed", 3: "float"}.get(max(formats), "undefined or complex")
    colour = _tiff_colour(first, bands) if len(depths) == len(formats) == 1 else "bands of different kinds"
    return Header(
        "TIFF",
        bands,
        max(depths),
        f"{colour}, big-endian BigTIFF" if big and order == ">" else colour,  # Pillow takes it for something else
        sample,
        lossy=first.get(259, (1,))[0] in LOSSY_TIFF,
        pages=pages,
        located=not PLACES.isdisjoint(first),
        orientation=first.get(274, (1,))[0],
    )


def _tiff_colour(tags: Tags, bands: int) -> str:
    """What the bands of a TIFF are. An extra band is alpha only where the file says so."""
    if tags.get(254, (0,))[0] & 1:
        return "a preview of a picture elsewhere in the file"
    if 262 not in tags:
        return "of no stated meaning"
    meaning = tags[262][0]
    if meaning == 0:
        return "grey, 0 is white"
    if meaning == 6:
        # libtiff gives RGB for what JPEG compresses, as every reader of JPEG does.
        name, base = ("RGB" if tags.get(259, (1,))[0] == 7 else "YCbCr"), 3
    else:
        name, base = TIFF_COLOURS.get(meaning, (f"PhotometricInterpretation {meaning}", bands))
    extra = bands - base
    if extra == 0:
        return name
    if extra == 1 and base in (1, 3) and name in COLOURS and name != "palette":
        kind = tags.get(338, (0,))[0]
        if kind:
            return name + {1: " with premultiplied alpha", 2: " with alpha"}.get(kind, " and 1 more")
    return f"{name} and {extra} more" if extra > 0 else f"{name}, but {-extra} missing"


def _directory(
    file: IO[bytes], order: str, place: int, *, big: bool, wanted: frozenset[int] = TAGS
) -> tuple[Tags, int]:
    """The wanted tags of an image file directory, and where the next directory is; 0: nowhere."""
    file.seek(place)
    count_format, entry, inline = ("Q", order + "HHQ8s", 8) if big else ("H", order + "HHI4s", 4)
    (count,) = struct.unpack(order + count_format, file.read(struct.calcsize(order + count_format)))
    if count > 0xFFFF:
        raise struct.error
    size, pointer = struct.calcsize(entry), "Q" if big else "I"
    content = file.read(count * size + inline)
    tags = {}
    for number in range(count):
        tag, kind, length, value = struct.unpack_from(entry, content, number * size)
        if tag in PLACES:
            tags[tag] = (length,)  # that it is there is enough
            continue
        letter = {1: "B", 3: "H", 4: "I", 16: "Q"}.get(kind)
        if kind in (6, 8, 9) and tag in wanted:  # a signed number, which Pillow would read
            raise struct.error
        if letter is None or tag not in wanted or not 0 < length < 2**24:
            continue
        form = f"{order}{length}{letter}"
        if struct.calcsize(form) > inline:
            file.seek(struct.unpack(order + pointer, value)[0])
            value = file.read(struct.calcsize(form))
        tags[tag] = struct.unpack(form, value[: struct.calcsize(form)])
    (following,) = struct.unpack_from(order + pointer, content, count * size)
    return tags, following


_FORMATS: Mapping[bytes, tuple[str, Callable[[IO[bytes], bytes], Header]]] = {
    b"\xff\xd8\xff": ("JPEG", _jpeg),
    b"\x89PNG\r\n\x1a\n": ("PNG", _png),
    **dict.fromkeys((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), ("TIFF", _tiff)),
    b"BM": ("BMP", _bmp),
    b"RIFF": ("WebP", _webp),
    **dict.fromkeys((b"GIF87a", b"GIF89a"), ("GIF", _gif)),
    **{b"P%d" % number: ("PPM", _ppm) for number in range(1, 7)},
}
