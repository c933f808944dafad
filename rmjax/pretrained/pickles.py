"""PyTorch's files read without PyTorch, and without running anything in them.

A pickle is a small program that may import and call whatever it names. This reader
never imports for one: the few names that tensors need stand for functions of this
module, a few more that training scripts leave beside them for an empty container,
and any other name ends the reading.
"""

import io
import math
import pickle
import re
import zipfile
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

# Storage classes of torch, https://docs.pytorch.org/docs/stable/storage.html
_STORAGES = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}
# What Lightning, optimisers and metrics leave in a checkpoint beside tensors.
_LEFT_OUT = re.compile(
    r"(pytorch_lightning|lightning|lightning_fabric|lightning_utilities)\..+"
    r"|torch\.optim\..+|torch\.(device|dtype|Size|float32|float16)"
    r"|argparse\.Namespace|pathlib\.\w*Path|collections\.(Counter|defaultdict|deque)"
    r"|numpy\.(ndarray|dtype)|numpy\.(core|_core)\.multiarray\.(scalar|_reconstruct)"
    r"|_codecs\.encode|(builtins|__builtin__)\.(set|frozenset)"
)
# The first two numbers of a file that torch.save wrote before version 1.6.
_OLD_MAGIC, _OLD_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001


class Refused(ValueError):
    """A file holds something else than tensors and plain values; says what."""


class LeftOut(dict):
    """Stands for an object of another library: takes whatever it is given."""

    def __init__(self, *_: Any, **__: Any):
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        """Ignore the state."""

    def __hash__(self) -> int:
        return id(self)

    def append(self, _: Any) -> None:
        """Ignore an item of a list."""

    add = extend = append


@dataclass(frozen=True)
class _Storage:
    """A run of numbers elsewhere in the file."""

    key: Hashable
    dtype: np.dtype


@dataclass(frozen=True)
class _Tensor:
    """Where in a storage a tensor's numbers are."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def of(self, data: bytes) -> np.ndarray:
        """Return the tensor, given the bytes of its storage."""
        numbers = np.frombuffer(data, self.storage.dtype)
        steps = zip(self.shape, self.strides, strict=True)
        last = self.offset + sum((n - 1) * step for n, step in steps)
        if min(*self.shape, *self.strides, self.offset, 0) < 0:
            raise Refused("a tensor of negative size")
        if 0 in self.shape:
            return np.zeros(self.shape, numbers.dtype)
        if last >= len(numbers) or math.prod(self.shape) > len(numbers):
            raise Refused(f"a tensor {list(self.shape)} of more numbers than there are")
        width = numbers.dtype.itemsize
        view = np.lib.stride_tricks.as_strided(
            numbers[self.offset :], self.shape, [step * width for step in self.strides]
        )
        return np.array(view)


def read_torch(file: BinaryIO) -> Any:
    """Read what `torch.save` wrote, in either of its formats.

    Returns:
        The object: dicts, lists, tuples, numbers and strings, with NumPy arrays for
        tensors and a `LeftOut` for anything of the libraries that training scripts
        leave in checkpoints.

    Raises:
        Refused: it names anything else, or tensors outside of their data.
        Exception: it is damaged, in one of the many ways of pickle and zipfile.
    """
    start = file.read(4)
    file.seek(0)
    if start == b"PK\x03\x04":
        return _read_zip(file)
    if start[:1] != pickle.PROTO:
        raise ValueError("its first bytes are of another kind of file")
    return _read_old(file)


def _read_zip(file: BinaryIO) -> Any:
    with zipfile.ZipFile(file) as archive:
        infos = {info.filename: info for info in archive.infolist()}
        roots = [n for n in infos if n.count("/") == 1 and n.endswith("/data.pkl")]
        if len(roots) != 1:
            raise Refused("a zip archive, but without the data.pkl of torch.save")
        root = roots[0].removesuffix("data.pkl")
        order = root + "byteorder"
        if order in infos and archive.read(order).strip() != b"little":
            raise Refused("numbers in another byte order than little-endian")

        def read(storage: _Storage) -> bytes:
            info = infos[f"{root}data/{storage.key}"]
            # torch never compresses; a bomb would.
            if info.compress_type != zipfile.ZIP_STORED:
                raise Refused("compressed tensors, which torch.save does not write")
            return archive.read(info)

        content = _Unpickler(io.BytesIO(archive.read(roots[0]))).load()
        return _fill(content, read)


def _read_old(file: BinaryIO) -> Any:
    magic, protocol, _ = (_Unpickler(file).load() for _ in range(3))
    if (magic, protocol) != (_OLD_MAGIC, _OLD_PROTOCOL):
        raise Refused("no file of torch.save")
    reader = _Unpickler(file)
    content = reader.load()
    data = {}
    for key in _Unpickler(file).load():
        count = int.from_bytes(file.read(8), "little")
        size = count * reader.storages[key].dtype.itemsize
        here = file.tell()
        if size > file.seek(0, io.SEEK_END) - here:
            raise Refused("tensors that end before their data do")
        file.seek(here)
        data[key] = file.read(size)
    return _fill(content, lambda storage: data[storage.key])


def _fill(value: Any, read: Callable[[_Storage], bytes]) -> Any:
    """Replace the tensors in nested containers by arrays."""
    if isinstance(value, _Tensor):
        return value.of(read(value.storage))
    if isinstance(value, dict) and not isinstance(value, LeftOut):
        return {k: _fill(v, read) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_fill(v, read) for v in value)
    return value


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: BinaryIO):
        super().__init__(file, encoding="utf-8")
        self.storages: dict[Hashable, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module in ("torch", "torch.storage") and name in _STORAGES:
            return _STORAGES[name]
        found = _BUILDERS.get(f"{module}.{name}")
        if found is not None:
            return found
        if _LEFT_OUT.fullmatch(f"{module}.{name}"):
            return LeftOut
        raise Refused(f"it asks to run {module}.{name}, which is no tensor")

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, *_ = pid
        if kind != "storage" or not isinstance(dtype, np.dtype):
            raise Refused("a storage of an unknown kind")
        return self.storages.setdefault(key, _Storage(key, dtype))


def _rebuild(
    storage: Any, offset: int, shape: tuple, strides: tuple, *_: Any
) -> _Tensor:
    if not isinstance(storage, _Storage):
        raise Refused("a tensor without data")
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


class _Dict(dict):
    """A dict without the attributes that torch hangs on one."""

    def __setstate__(self, state: Any) -> None:
        pass


_BUILDERS = {
    "collections.OrderedDict": _Dict,
    "torch._utils._rebuild_tensor": _rebuild,
    "torch._utils._rebuild_tensor_v2": _rebuild,
    "torch._utils._rebuild_parameter": lambda data, *_: data,
}
