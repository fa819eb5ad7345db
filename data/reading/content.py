"""What a file really is goes by its first bytes, whatever it is called."""

import bz2
import codecs
import gzip
import lzma
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal

Content = Literal["text", "parquet", "arrow", "excel"]

PACKED: dict[bytes, Any] = {b"\x1f\x8b": gzip, b"BZh": bz2, b"\xfd7zXZ\x00": lzma}
PACKED_SUFFIXES = (".gz", ".bz2", ".xz")
MARKS = (  # the longer first: UTF-32's begins like UTF-16's
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
    (b"\x84\x31\x95\x33", "gb18030"),
)
SAVE_AS = "save its sheet as CSV (in Excel: “CSV UTF-8”)"
# First bytes, what such a file is, and what to do.
FOREIGN = (
    (b"version https://git-lfs", "a Git LFS pointer, not the data", "fetch it with `git lfs pull`"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Excel file of the old kind (.xls)", SAVE_AS),
    (b"\x28\xb5\x2f\xfd", "a zstd archive", "unpack it with `zstd -d`"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it"),
    (b"Rar!\x1a\x07", "a RAR archive", "unpack it"),
    (b"SQLite format 3\x00", "an SQLite data base", "export the table as CSV"),
    (b"\x89HDF", "an HDF5 file", "export it as CSV or Parquet"),
    (b"\x93NUMPY", "a NumPy array", "write it as CSV or JSON lines"),
    (b"Obj\x01", "an Avro file", "write it as Parquet or CSV"),
    (b"ORC", "an ORC file", "write it as Parquet or CSV"),
    (b"__label__", "a fastText file", "write it as CSV: a column of texts, one of labels"),
    (b"%PDF", "a PDF document", "export its table as CSV"),
    (b"{\\rtf", "a word processor's document (RTF)", "save it as plain text"),
    (b"\x89PNG", "a picture (PNG)", "give a table"),
    (b"\xff\xd8\xff", "a picture (JPEG)", "give a table"),
    *((bytes([0x80, version]), "a Python pickle", "write it as CSV or JSON lines: a pickle can "
       "run code when it is opened") for version in range(2, 6)),
)  # fmt: skip
PAGE = (b"<!doctype html", b"<html", b"<head", b"<?xml", b"<!--")


def plain_suffix(path: Path) -> str:
    """The ending that says how rows are written: ".csv" of reviews.csv and reviews.csv.gz."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in PACKED_SUFFIXES:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def open_bytes(path: Path) -> IO[bytes]:
    """The file's bytes, unpacked where its first bytes are those of gzip, bzip2 or xz."""
    with path.open("rb") as file:
        start = file.read(6)
    for magic, module in PACKED.items():
        if start.startswith(magic):
            return module.open(path, "rb")
    return path.open("rb")


@contextmanager
def unpacking(path: Path | str) -> Iterator[None]:
    """Around every reading from `open_bytes`: raises ValueError, naming the file, where its packing
    is cut short or damaged."""
    try:
        yield
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # not there, or not to be read: the system's own words name the file
        raise ValueError(
            f"{path}: its packing is cut short or damaged ({error}); fetch it again"
        ) from None


def encoding_mark(start: bytes) -> tuple[str, int] | None:
    """(encoding, bytes of the mark) where a file begins with a byte order mark, else None."""
    for mark, encoding in MARKS:
        if start.startswith(mark):
            return encoding, len(mark)
    return None


def sniff(path: Path) -> Content:
    """What the file holds. Raises ValueError naming a file that is no table for what it is."""
    with unpacking(path), open_bytes(path) as file:
        start = file.read(4096)
    if start.startswith(b"PAR1"):
        return "parquet"
    if start.startswith((b"ARROW1", b"\xff\xff\xff\xff")):  # file, stream
        return "arrow"
    if start.startswith(b"PK\x03\x04"):
        return _sniff_zip(path)
    for magic, what, advice in FOREIGN:
        # ORC may as well be the beginning of a column's name, as of ORCID
        if start.startswith(magic) and (magic != b"ORC" or b"\0" in start):
            raise ValueError(f"{path} is {what}; {advice}")
    if encoding_mark(start) is None:
        _refuse_no_text(path, start)
    return "text"


def _sniff_zip(path: Path) -> Content:
    """Zip is the wrapping of office files too; what lies inside tells them apart."""
    try:
        with open_bytes(path) as file, zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, EOFError):
        raise ValueError(
            f"{path} is an Excel or zip file that is cut short or damaged; fetch it again"
        ) from None
    if any(name.startswith("xl/") for name in names):
        return "excel"
    if any(name.startswith("word/") for name in names):
        raise ValueError(f"{path} is a Word document; save its table as CSV")
    if "mimetype" in names:
        raise ValueError(f"{path} is an OpenDocument file; {SAVE_AS}")
    inside = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
    raise ValueError(f"{path} is a zip archive of {inside}; unpack it and name the file inside")


def _refuse_no_text(path: Path, start: bytes) -> None:
    lowered = start.lstrip()[:20].lower()
    if lowered.startswith(PAGE) and b"<html" in start.lower() + (b"<html" if lowered.startswith(
        PAGE[0]) else b""):  # fmt: skip
        raise ValueError(
            f"{path} is an HTML page, perhaps a log-in or an error page saved under that name; "
            "fetch the data itself"
        )
    if lowered.startswith(b"<?xml"):
        raise ValueError(f"{path} is an XML file; write its rows as CSV or JSON lines")
    if start[257:262] == b"ustar":
        raise ValueError(f"{path} is a tar archive; unpack it and name the file inside")
    if start and not start.strip(b"\0"):
        raise ValueError(f"{path} holds nothing but zero bytes: it was not written; fetch it again")
    first_line = start.partition(b"\n")[0]  # later ones may hold stray zero bytes
    if b"\0" in first_line and wide_encoding(start) is None:
        raise ValueError(
            f"{path} is no text: it holds zero bytes; give a table as text, or Parquet"
        )


def wide_encoding(start: bytes) -> str | None:
    """The UTF-16 of a text without a byte order mark, told by where its zero bytes stand."""
    even, odd = start[::2].count(0), start[1::2].count(0)
    half = max(1, len(start) // 2)
    if odd > 0.3 * half and even < 0.05 * half:
        return "utf-16-le"
    if even > 0.3 * half and odd < 0.05 * half:
        return "utf-16-be"
    return None
