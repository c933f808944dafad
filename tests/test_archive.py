"""Reading of tar archives, beside Python's own tarfile."""

import bz2
import gzip
import io
import lzma
import random
import tarfile
from pathlib import Path

import pytest

from rmjax.data.archive import read_members
from rmjax.errors import InputError

LONG = "a/" * 30 + "folder/" * 20 + "ünïcode file.jpg"
OPENERS = {"": open, "gz": gzip.open, "bz2": bz2.open, "xz": lzma.open}


def pack(file: Path, names: list[str], form: int, opener=open) -> dict[str, bytes]:
    """Write members with random contents, and others than files between them."""
    rng, files = random.Random(0), {}
    others = {
        "folder": tarfile.DIRTYPE,
        "link": tarfile.SYMTYPE,
        "hard": tarfile.LNKTYPE,
    }
    with (
        opener(file, "wb") as stream,
        tarfile.open(fileobj=stream, mode="w", format=form) as tar,
    ):
        for name, kind in others.items():
            member = tarfile.TarInfo(f"{name}/" * 20 + name)
            member.type, member.linkname = (
                kind,
                "x" * (90 if form == tarfile.USTAR_FORMAT else 150),
            )
            tar.addfile(member)
        for name in names:
            files[name] = rng.randbytes(rng.choice((0, 1, 511, 512, 513, 5000)))
            member = tarfile.TarInfo(name)
            member.size = len(files[name])
            tar.addfile(member, io.BytesIO(files[name]))
    return files


def read(file: Path, wanted=lambda name: True) -> dict[str, bytes]:
    return dict(read_members(file, wanted, "test"))


@pytest.mark.parametrize(
    "form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
)
def test_members_are_those_that_tarfile_wrote(tmp_path, form):
    names = [f"{i}/{'n' * (i % 90)}.jpg" for i in range(120)]
    names += ["p" * 90 + "/" + "q" * 60] + (
        [LONG] if form != tarfile.USTAR_FORMAT else []
    )
    if form == tarfile.USTAR_FORMAT:
        names = [name for name in names if name.isascii()]
    files = pack(tmp_path / "a.tar", names, form)
    assert read(tmp_path / "a.tar") == files


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE])
def test_every_kind_of_file_is_read(tmp_path, kind):
    with tarfile.open(tmp_path / "a", "w") as tar:
        member = tarfile.TarInfo("x")
        member.type, member.size = kind, 3
        tar.addfile(member, io.BytesIO(b"abc"))
    assert read(tmp_path / "a") == {"x": b"abc"}


def test_sparse_member_is_refused(tmp_path):
    member = tarfile.TarInfo("x")
    member.type = tarfile.GNUTYPE_SPARSE
    (tmp_path / "a").write_bytes(member.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(InputError, match="x is stored sparsely"):
        read(tmp_path / "a")


@pytest.mark.parametrize("suffix", OPENERS)
def test_compression_is_recognised(tmp_path, suffix):
    files = pack(tmp_path / "a", ["x", "y/z"], tarfile.PAX_FORMAT, OPENERS[suffix])
    assert read(tmp_path / "a") == files


def test_unwanted_members_are_passed_over(tmp_path):
    files = pack(tmp_path / "a", ["x", "y", "./z//w"], tarfile.PAX_FORMAT)
    assert read(tmp_path / "a", lambda name: name == "y") == {"y": files["y"]}
    assert read(tmp_path / "a", lambda name: name == "z/w") == {"z/w": files["./z//w"]}


def test_sizes_beyond_octal_digits_are_read(tmp_path):
    member = tarfile.TarInfo("large")
    member.size = 2**34  # 12 octal digits
    (tmp_path / "a").write_bytes(member.tobuf(tarfile.GNU_FORMAT))
    with pytest.raises(InputError, match="large has 17,179,869,184 bytes; at most"):
        read(tmp_path / "a")


@pytest.mark.parametrize("suffix", OPENERS)
def test_every_truncation_is_noticed(tmp_path, suffix):
    pack(tmp_path / "a", ["x", "y", "z"], tarfile.PAX_FORMAT, OPENERS[suffix])
    whole = (tmp_path / "a").read_bytes()
    with OPENERS[suffix](tmp_path / "a", "rb") as stream:
        end = len(stream.read().rstrip(b"\0"))
    # Uncompressed, only zeros can be missing unnoticed.
    stop = end if not suffix else len(whole)
    for length in range(0, stop, max(1, stop // 60)):
        (tmp_path / "b").write_bytes(whole[:length])
        with pytest.raises(
            InputError, match="b: truncated or damaged, or no tar archive"
        ):
            read(tmp_path / "b")


def test_damage_is_noticed(tmp_path):
    pack(tmp_path / "a", ["x", "y", "z"], tarfile.PAX_FORMAT, gzip.open)
    whole = bytearray((tmp_path / "a").read_bytes())
    for place in range(20, len(whole), max(1, len(whole) // 40)):
        damaged = whole.copy()
        damaged[place] ^= 0x55
        (tmp_path / "b").write_bytes(damaged)
        with pytest.raises(InputError, match="b: "):
            read(tmp_path / "b")


def test_random_bytes_are_no_archive(tmp_path):
    (tmp_path / "a").write_bytes(random.Random(0).randbytes(5000))
    with pytest.raises(InputError, match="no tar archive"):
        read(tmp_path / "a")
    with pytest.raises(InputError, match="No such file"):
        read(tmp_path / "absent")
