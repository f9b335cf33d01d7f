"""Hostile TIFF, PNG, JPEG and VRT: not random damage but fields that say what cannot be."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Iterator

from PIL import Image

Mutation = tuple[str, bytes]

SHORT, LONG, DOUBLE, ASCII = 3, 4, 12, 2
WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 256, 257, 258, 259, 262
OFFSETS, SAMPLES, ROWS, COUNTS, PLANAR, PREDICTOR = 273, 277, 278, 279, 284, 317
TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_COUNTS, EXTRA, FORMAT = 322, 323, 324, 325, 338, 339
PIXEL_SCALE, TIE_POINTS, TRANSFORM, GEO_KEYS, METADATA, NODATA = 33550, 33922, 34264, 34735, 42112, 42113
TYPE_BYTES = {1: 1, ASCII: 1, SHORT: 2, LONG: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, DOUBLE: 8}
NAN, INFINITE = float("nan"), float("inf")


class TiffFile:
    """The first directory of a classic little-endian TIFF, whose entries can be replaced."""

    def __init__(self, content: bytes) -> None:
        assert content[:4] == b"II*\0", "a classic little-endian TIFF is needed"
        self.content = content
        (self.at,) = struct.unpack_from("<I", content, 4)
        (count,) = struct.unpack_from("<H", content, self.at)
        self.entries = {}
        for index in range(count):
            tag, kind, number = struct.unpack_from("<HHI", content, self.at + 2 + 12 * index)
            self.entries[tag] = (kind, number, content[self.at + 10 + 12 * index : self.at + 14 + 12 * index])

    def build(self, changes: dict[int, tuple[int, list[float] | bytes] | None], *, following: int | None = 0) -> bytes:
        """Return the file with other entries; `following` is where the next directory is, None: at this one."""
        content, entries = bytearray(self.content), dict(self.entries)
        for tag, change in changes.items():
            if change is None:
                entries.pop(tag, None)
                continue
            kind, values = change
            packed = (
                values
                if isinstance(values, bytes)
                else struct.pack(f"<{len(values)}{ {SHORT: 'H', LONG: 'I', DOUBLE: 'd'}[kind] }", *values)
            )
            number = len(packed) // TYPE_BYTES[kind]
            if len(packed) > 4:
                place = struct.pack("<I", len(content))
                content += packed + bytes(len(packed) % 2)
            else:
                place = packed.ljust(4, b"\0")
            entries[tag] = (kind, number, place)
        at = len(content)
        content += struct.pack("<H", len(entries))
        for tag in sorted(entries):
            kind, number, place = entries[tag]
            content += struct.pack("<HHI", tag, kind, number) + place
        content += struct.pack("<I", at if following is None else following)
        struct.pack_into("<I", content, 4, at)
        return bytes(content)


def mutate_tiff(content: bytes, rng: random.Random, count: int) -> Iterator[Mutation]:
    """Yield TIFFs whose tags are absurd, lie about the bytes, or lead in a circle."""
    file = TiffFile(content)
    huge, most = 2**31 - 1, 2**32 - 1
    by_name: dict[str, dict[int, tuple[int, list[float] | bytes] | None]] = {
        "no width": {WIDTH: None},
        "width 0": {WIDTH: (LONG, [0])},
        "width of 2^31": {WIDTH: (LONG, [huge])},
        "2^31 x 2^31": {WIDTH: (LONG, [huge]), HEIGHT: (LONG, [huge])},
        "100,000 x 100,000": {WIDTH: (LONG, [100_000]), HEIGHT: (LONG, [100_000])},
        "tile of 0": {TILE_WIDTH: (LONG, [0]), TILE_HEIGHT: (LONG, [0])},
        "tile of 2^31": {TILE_WIDTH: (LONG, [huge - 15]), TILE_HEIGHT: (LONG, [huge - 15])},
        "tile of 7": {TILE_WIDTH: (LONG, [7]), TILE_HEIGHT: (LONG, [7])},
        "0 bands": {SAMPLES: (SHORT, [0])},
        "65,535 bands": {SAMPLES: (SHORT, [65_535])},
        "10^9 bands": {SAMPLES: (LONG, [10**9])},
        "3 bits": {BITS: (SHORT, [3, 3, 3])},
        "0 bits": {BITS: (SHORT, [0])},
        "bits that differ": {BITS: (SHORT, [8, 16, 32])},
        "64 bits": {BITS: (SHORT, [64, 64, 64])},
        "complex": {FORMAT: (SHORT, [6, 6, 6]), BITS: (SHORT, [64, 64, 64])},
        "no format": {FORMAT: (SHORT, [9, 9, 9])},
        "unknown compression": {COMPRESSION: (SHORT, [60_000])},
        "LZW of raw bytes": {COMPRESSION: (SHORT, [5])},
        "deflate of raw bytes": {COMPRESSION: (SHORT, [8])},
        "JPEG of raw bytes": {COMPRESSION: (SHORT, [7])},
        "predictor 99": {PREDICTOR: (SHORT, [99])},
        "predictor of floats": {PREDICTOR: (SHORT, [3]), COMPRESSION: (SHORT, [8])},
        "photometric 99": {PHOTOMETRIC: (SHORT, [99])},
        "palette without colours": {PHOTOMETRIC: (SHORT, [3])},
        "YCbCr without JPEG": {PHOTOMETRIC: (SHORT, [6])},
        "planar 9": {PLANAR: (SHORT, [9])},
        "bands apart": {PLANAR: (SHORT, [2])},
        "1,000 alphas": {EXTRA: (SHORT, [1] * 1_000)},
        "offsets beyond the end": {OFFSETS: (LONG, [most]), TILE_OFFSETS: (LONG, [most])},
        "offsets of the header": {OFFSETS: (LONG, [0]), TILE_OFFSETS: (LONG, [0])},
        "no offsets": {OFFSETS: None, TILE_OFFSETS: None},
        "byte counts of 4 GB": {COUNTS: (LONG, [most]), TILE_COUNTS: (LONG, [most])},
        "byte counts of 0": {COUNTS: (LONG, [0]), TILE_COUNTS: (LONG, [0])},
        "byte counts of 1": {COUNTS: (LONG, [1]), TILE_COUNTS: (LONG, [1])},
        "no byte counts": {COUNTS: None, TILE_COUNTS: None},
        "0 rows in a strip": {ROWS: (LONG, [0])},
        "2^32 rows in a strip": {ROWS: (LONG, [most])},
        "scale of 0": {PIXEL_SCALE: (DOUBLE, [0.0, 0.0, 0.0])},
        "scale of NaN": {PIXEL_SCALE: (DOUBLE, [NAN, NAN, 0.0])},
        "scale of infinity": {PIXEL_SCALE: (DOUBLE, [INFINITE, INFINITE, 0.0])},
        "scale of 1e300": {PIXEL_SCALE: (DOUBLE, [1e300, 1e300, 0.0])},
        "scale of 1e-300": {PIXEL_SCALE: (DOUBLE, [1e-300, 1e-300, 0.0])},
        "tie point of NaN": {TIE_POINTS: (DOUBLE, [0.0, 0.0, 0.0, NAN, NAN, 0.0])},
        "tie point of 1e300": {TIE_POINTS: (DOUBLE, [0.0, 0.0, 0.0, 1e300, -1e300, 0.0])},
        "half a tie point": {TIE_POINTS: (DOUBLE, [0.0, 0.0, 0.0])},
        "200 tie points of NaN": {PIXEL_SCALE: None, TIE_POINTS: (DOUBLE, [NAN] * 1_200)},
        "a matrix of zeros": {PIXEL_SCALE: None, TIE_POINTS: None, TRANSFORM: (DOUBLE, [0.0] * 16)},
        "a matrix of NaN": {PIXEL_SCALE: None, TIE_POINTS: None, TRANSFORM: (DOUBLE, [NAN] * 16)},
        "keys of noise": {GEO_KEYS: (SHORT, [rng.randrange(65_536) for _ in range(64)])},
        "a CRS of 32,767": {GEO_KEYS: (SHORT, [1, 1, 0, 2, 1024, 0, 1, 1, 3072, 0, 1, 32_767])},
        "a CRS that is unknown": {GEO_KEYS: (SHORT, [1, 1, 0, 2, 1024, 0, 1, 1, 3072, 0, 1, 1_111])},
        "65,535 keys": {GEO_KEYS: (SHORT, [1, 1, 0, 65_535, 1024, 0, 1, 1])},
        "no data is text": {NODATA: (ASCII, b"abc\0")},
        "no data is 1e999": {NODATA: (ASCII, b"1e999\0")},
        "no data is nan": {NODATA: (ASCII, b"nan\0")},
        "no data of 100,000 digits": {NODATA: (ASCII, b"1" * 100_000 + b"\0")},
        "no data is every value": {NODATA: (ASCII, b"250\0")},
        "metadata of entities": {METADATA: (ASCII, LAUGHS + b"\0")},
        "metadata in a million levels": {METADATA: (ASCII, b"<a>" * 200_000 + b"\0")},
        "scale and offset of NaN": {
            METADATA: (
                ASCII,
                b'<GDALMetadata><Item name="SCALE" sample="0" role="scale">nan</Item>'
                b'<Item name="OFFSET" sample="0" role="offset">1e999</Item></GDALMetadata>\0',
            )
        },
    }
    for name, changes in by_name.items():
        yield name, file.build(changes)
    yield "a directory that follows itself", file.build({}, following=None)
    yield "a directory beyond the end", file.build({}, following=most)
    yield "BigTIFF without content", b"II+\0\x08\0\0\0" + struct.pack("<Q", 16)
    yield "BigTIFF far away", b"II+\0\x08\0\0\0" + struct.pack("<Q", 2**62)
    yield "65,535 entries", content[:8] + struct.pack("<H", 65_535) + content[10:]
    for _ in range(count):
        tag = rng.choice(sorted(file.entries))
        kind = rng.choice((SHORT, LONG))
        values = [float(rng.choice((0, 1, 2, 255, 65_535))) for _ in range(rng.choice((1, 3, 200)))]
        yield f"tag {tag} of {len(values)} times {values[0]:g}", file.build({tag: (kind, [int(v) for v in values])})


LAUGHS = (
    b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a0 "ha">'
    + b"".join(b'<!ENTITY a%d "' % n + b"&a%d;" % (n - 1) * 10 + b'">' for n in range(1, 12))
    + b"]><a>&a11;</a>"
)
"""XML that unfolds to 10^11 letters."""


# ------------------------------------------------------------------------------------------------ PNG and JPEG
def build_png(*chunks: tuple[bytes, bytes], wrong_sums: bool = False) -> bytes:
    """Return a PNG of any chunks."""
    content = b"\x89PNG\r\n\x1a\n"
    for name, data in chunks:
        total = zlib.crc32(name + data) ^ (1 if wrong_sums else 0)
        content += struct.pack(">I", len(data)) + name + data + struct.pack(">I", total)
    return content


def head(width: int, height: int, bits: int = 8, colour: int = 2, interlace: int = 0) -> tuple[bytes, bytes]:
    """Return the first chunk."""
    return b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlace)


def mutate_png(content: bytes, rng: random.Random, count: int) -> Iterator[Mutation]:
    """Yield PNGs that announce too much, unfold to too much, or hold chunks that do not belong there."""
    with Image.open(io.BytesIO(content)) as picture:
        width, height = picture.size
    rows, end = zlib.compress(bytes((width * 3 + 1) * height)), (b"IEND", b"")
    data, bomb = (b"IDAT", rows), zlib.compress(bytes(200_000_000), 1)
    yield "2^31 x 2^31", build_png(head(2**31 - 1, 2**31 - 1), data, end)
    yield "40,000 x 40,000", build_png(head(40_000, 40_000), data, end)
    yield "20,000 x 20,000 of zeros", build_png(head(20_000, 10_000, colour=0), (b"IDAT", bomb), end)
    yield "0 x 0", build_png(head(0, 0), data, end)
    yield "1 x 1", build_png(head(1, 1), data, end)
    yield "3 bits", build_png(head(width, height, bits=3), data, end)
    yield "colour 9", build_png(head(width, height, colour=9), data, end)
    yield "interlace 7", build_png(head(width, height, interlace=7), data, end)
    yield "more than its pixels", build_png(head(width, height), (b"IDAT", bomb), end)
    yield "fewer than its pixels", build_png(head(width, height), (b"IDAT", zlib.compress(bytes(9))), end)
    yield "a palette without colours", build_png(head(width, height, colour=3), (b"PLTE", b""), data, end)
    yield "no data", build_png(head(width, height), end)
    yield "no end", build_png(head(width, height), data)
    yield "wrong sums", build_png(head(width, height), data, end, wrong_sums=True)
    yield "two heads", build_png(head(width, height), head(9, 9), data, end)
    yield "a text of 200 MB", build_png(head(width, height), (b"zTXt", b"a\0\0" + bomb), data, end)
    yield "a profile of 200 MB", build_png(head(width, height), (b"iCCP", b"a\0\0" + bomb), data, end)
    yield "an itext of 200 MB", build_png(head(width, height), (b"iTXt", b"a\0\1\0\0\0" + bomb), data, end)
    yield "100,000 texts", build_png(head(width, height), *[(b"tEXt", b"a\0b")] * 100_000, data, end)
    yield "animated", build_png(head(width, height), (b"acTL", struct.pack(">II", 2**31, 0)), data, end)
    yield "16 bits of grey", _save(Image.new("I;16", (width, height), 40_000), "PNG")
    yield "one bit", _save(Image.new("1", (width, height)), "PNG")
    yield "grey with alpha", _save(Image.new("LA", (width, height)), "PNG")
    yield "another size", _save(Image.new("RGB", (width + 1, height)), "PNG")
    yield "a GIF", _save(Image.new("RGB", (width, height)), "GIF")
    yield "an icon", _save(Image.new("RGB", (16, 16)), "ICO")
    yield "PostScript", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 48 40\n(/etc/passwd) (r) file\nshowpage\n"
    yield "PPM of exabytes", b"P6\n99999999999 99999999999\n255\n" + bytes(99)
    yield "XPM", b'/* XPM */\nstatic char *x[] = {"99999 99999 1 1", "a c #000000"};'


def mutate_jpeg(content: bytes, rng: random.Random, count: int) -> Iterator[Mutation]:
    """Yield JPEGs that announce too much or are of another kind."""
    with Image.open(io.BytesIO(content)) as picture:
        width, height = picture.size
    at = next(place for place in range(len(content)) if content[place : place + 2] in (b"\xff\xc0", b"\xff\xc2"))
    for name, (rows, columns) in {"65,535 x 65,535": (65_535, 65_535), "0 x 0": (0, 0), "1 row": (1, width)}.items():
        yield name, content[: at + 5] + struct.pack(">HH", rows, columns) + content[at + 9 :]
    yield "12 bits", content[: at + 4] + b"\x0c" + content[at + 5 :]
    yield "200 components", content[: at + 9] + b"\xc8" + content[at + 10 :]
    yield "CMYK", _save(Image.new("CMYK", (width, height)), "JPEG")
    yield "grey", _save(Image.new("L", (width, height)), "JPEG")
    yield "a segment longer than the file", content[:2] + b"\xff\xe1\xff\xff" + content[2:]
    yield "Exif in a circle", content[:2] + b"\xff\xe1\x00\x22Exif\0\0II*\0\x08\0\0\0" + b"\x01\0\x69\x87\x04\0\x01\0\0\0\x08\0\0\0" + b"\x08\0\0\0" + content[2:]  # fmt: skip  # noqa: E501
    yield "turned by Exif", content[:2] + b"\xff\xe1\x00\x22Exif\0\0II*\0\x08\0\0\0" + b"\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0" + b"\0\0\0\0" + content[2:]  # fmt: skip  # noqa: E501
    yield "10,000 comments", content[:2] + b"\xff\xfe\x00\x04ab" * 10_000 + content[2:]
    yield "a PNG", _save(Image.new("RGB", (width, height)), "PNG")
    yield "WebP", _save(Image.new("RGB", (width, height)), "WEBP")


def _save(picture: Image.Image, kind: str) -> bytes:
    content = io.BytesIO()
    picture.save(content, kind)
    return content.getvalue()


# ------------------------------------------------------------------------------------------------ VRT
SOURCE = '<SimpleSource><SourceFilename relativeToVRT="1">{}</SourceFilename><SourceBand>{}</SourceBand></SimpleSource>'


def build_vrt(
    source: str = "after.tif", *, width: str = "64", height: str = "64", band: str = "", more: str = ""
) -> str:
    """Return a VRT of three bands."""
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{number}"{band}>{SOURCE.format(source, number)}</VRTRasterBand>'
        for number in (1, 2, 3)
    )
    return f'<VRTDataset rasterXSize="{width}" rasterYSize="{height}">{more}{bands}</VRTDataset>'


def mutate_vrt(content: bytes, rng: random.Random, count: int) -> Iterator[Mutation]:
    """Yield virtual rasters that lead elsewhere, to themselves, to nothing, or to too much."""
    sources = (
        "mosaic.vrt", "./mosaic.vrt", "../../../etc/passwd", "/etc/passwd", "/dev/zero", "/proc/self/mem",
        "missing.tif",
        "/vsicurl/http://127.0.0.1:1/a.tif", "http://127.0.0.1:1/a.tif", "/vsis3/a/b.tif", "/vsistdin/", "/vsimem/a",
        "/vsizip/a.zip/a.tif", "GTIFF_DIR:1:after.tif", "WMS:http://127.0.0.1:1", "&lt;VRTDataset/&gt;", "run", "",
        " after.tif", "a" * 300, "a/" * 3_000, "a&#10;b", "small_png", "store/manifest.json", "truth.geojson", "link",
        "vrt://after.tif", "DERIVED_SUBDATASET:LOGAMPLITUDE:after.tif", "after.tif|ls", "| ls", "file:///etc/passwd",
    )  # fmt: skip
    for source in sources:
        yield f"source {source[:50]}", build_vrt(source).encode()
    for width in ("0", "-1", "x", "nan", "1e9", "2147483647", "9" * 5_000):
        yield f"width {width[:20]}", build_vrt(width=width).encode()
    yield "2^31 x 2^31", build_vrt(width="2147483647", height="2147483647").encode()
    yield "a raw band", build_vrt(band=' subClass="VRTRawRasterBand"').encode()
    yield "a derived band", build_vrt(band=' subClass="VRTDerivedRasterBand"').encode()
    python = "<PixelFunctionLanguage>Python</PixelFunctionLanguage><PixelFunctionType>os.system</PixelFunctionType>"
    yield "code", build_vrt(band=' subClass="VRTDerivedRasterBand"').replace("<SimpleSource>", f"{python}<SimpleSource>").encode()  # fmt: skip  # noqa: E501
    yield "a band 0", build_vrt().replace('band="1"', 'band="0"').replace(">1</SourceBand>", ">0</SourceBand>").encode()
    yield "a band 99", build_vrt().replace(">1</SourceBand>", ">99</SourceBand>").encode()
    yield "windows of NaN", build_vrt().replace(
        "</SourceBand>", '</SourceBand><SrcRect xOff="nan" yOff="nan" xSize="nan" ySize="nan"/>'
    ).encode()  # fmt: skip
    yield "windows of 1e300", build_vrt().replace(
        "</SourceBand>", '</SourceBand><DstRect xOff="0" yOff="0" xSize="1e300" ySize="1e300"/>'
    ).encode()  # fmt: skip
    yield "a grid of NaN", build_vrt(more="<GeoTransform>nan,nan,nan,nan,nan,nan</GeoTransform>").encode()
    yield "a CRS that is none", build_vrt(more="<SRS>no CRS</SRS>").encode()
    yield "a CRS behind an address", build_vrt(more="<SRS>http://127.0.0.1:1/crs</SRS>").encode()
    yield "100,000 sources", build_vrt().replace("</SimpleSource>", "</SimpleSource>" + SOURCE.format("after.tif", 1) * 20_000).encode()  # fmt: skip  # noqa: E501
    yield "overviews elsewhere", build_vrt(more="<OverviewList>2</OverviewList>").encode()
    yield "an entity of a file", b'<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/passwd">]>' + build_vrt("&e;").encode()
    yield "entities of entities", LAUGHS
    yield "deep", b"<VRTDataset>" * 100_000
    yield "UTF-16", build_vrt().encode("utf-16")
    yield "no XML", b"<VRTDataset"
    yield "other XML", b"<GDAL_WMS><Service name='TMS'><ServerUrl>http://127.0.0.1:1</ServerUrl></Service></GDAL_WMS>"
    yield "OGR", b"<OGRVRTDataSource><OGRVRTLayer name='a'><SrcDataSource>truth.geojson</SrcDataSource></OGRVRTLayer></OGRVRTDataSource>"  # fmt: skip  # noqa: E501
