"""PyTorch's files read without PyTorch, and without running anything in them.

A pickle is a small program that may import and call whatever it names. This reader
never imports for one: the few names that tensors need stand for functions of this
module, a few more that training scripts leave beside them for an empty container,
and any other name ends the reading.
"""

import functools
import io
import math
import pickle
import re
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, BinaryIO, ClassVar

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
    r"|torch\.optim\..+|torch\.(device|dtype|Size|b?float\d+)"
    r"|argparse\.Namespace|pathlib\.\w*Path|collections\.(Counter|defaultdict|deque)"
    r"|numpy\.(ndarray|dtype)|numpy\.(core|_core)\.multiarray\.(scalar|_reconstruct)"
    r"|_codecs\.encode|(builtins|__builtin__)\.(set|frozenset)"
)
# Opcodes of other protocols than torch's that hash what they are given.
_UNUSED = [c[0] for c in (pickle.DICT, pickle.FROZENSET, pickle.ADDITEMS)]
# The first two numbers of a file that torch.save wrote before version 1.6.
_OLD_MAGIC, _OLD_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001


class Refused(ValueError):
    """A file holds something else than tensors and plain values; says what."""


class LeftOut(dict):
    """Stands for an object of another library: takes whatever it is given."""

    def __init__(self, *_: Any, **__: Any):
        super().__init__()

    def __hash__(self) -> int:  # type: ignore[override]  # it may be a key
        return id(self)

    def append(self, _: Any) -> None:
        """Ignore an item of a list."""

    add = extend = append


@dataclass(frozen=True)
class _Storage:
    """A run of numbers elsewhere in the file."""

    key: str
    dtype: np.dtype


@dataclass(frozen=True)
class _Tensor:
    """Where in a storage a tensor's numbers are."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def of(self, data: bytes) -> np.ndarray:
        """Return the tensor, read-only, given the bytes of its storage."""
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
        # No copy: a thousand tensors may share one storage.
        return np.lib.stride_tricks.as_strided(
            numbers[self.offset :],
            self.shape,
            [step * width for step in self.strides],
            writeable=False,
        )


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
        raise ValueError("its first bytes are of another sort of file")
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

        @functools.cache
        def read(name: str) -> bytes:
            # torch never compresses; a bomb would.
            if infos[name].compress_type != zipfile.ZIP_STORED:
                raise Refused("compressed data, which torch.save does not write")
            return archive.read(name)

        content = _Unpickler(io.BytesIO(read(roots[0]))).load()
        return _fill(content, lambda key: read(f"{root}data/{key}"), {})


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
    return _fill(content, data.__getitem__, {})


def _fill(value: Any, read: Callable[[str], bytes], filled: dict[int, Any]) -> Any:
    """Replace the tensors in nested containers by arrays.

    `filled` is what has been seen to, by id: lists that hold each other twice, forty
    deep, are a small file and endless work.
    """
    if id(value) in filled:
        return filled[id(value)]
    result = value
    if isinstance(value, _Tensor):
        result = value.of(read(value.storage.key))
    elif isinstance(value, dict) and not isinstance(value, LeftOut):
        result = {k: _fill(v, read, filled) for k, v in value.items()}
    elif isinstance(value, list | tuple):
        result = type(value)([_fill(v, read, filled) for v in value])
    filled[id(value)] = result
    return result


# The one in Python: the one in C sets aside as much memory as a file says it needs.
class _Unpickler(pickle._Unpickler):
    stack: list[Any]
    pop_mark: Callable[[], list[Any]]
    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        code: load
        for code, load in pickle._Unpickler.dispatch.items()
        if code not in _UNUSED
    }

    def __init__(self, file: BinaryIO):
        super().__init__(file, encoding="utf-8")
        self.storages: dict[str, _Storage] = {}

    def load_build(self) -> None:
        """Drop the state of an object; set, it could change what outlives the file."""
        self.stack.pop()

    dispatch[pickle.BUILD[0]] = load_build

    def load_setitems(self) -> None:
        items = self.pop_mark()
        self.stack[-1].update(_dict(zip(items[::2], items[1::2], strict=True)))

    dispatch[pickle.SETITEMS[0]] = load_setitems

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.stack[-1].update(_dict([(key, value)]))

    dispatch[pickle.SETITEM[0]] = load_setitem

    def find_class(self, module: str, name: str) -> Any:
        if module in ("torch", "torch.storage") and name in _STORAGES:
            return _STORAGES[name]
        builder = _BUILDERS.get(f"{module}.{name}")
        if builder is not None:
            return builder
        if _LEFT_OUT.fullmatch(f"{module}.{name}"):
            return LeftOut
        raise Refused(
            f"it asks to run {module}.{name}, which is no tensor (of a whole model, "
            "save the state_dict())"
        )

    def persistent_load(self, pid: Any) -> _Storage:
        what, dtype, key, *_ = pid
        known = isinstance(key, str) and isinstance(dtype, np.dtype)
        if what != "storage" or not known:
            raise Refused("a storage of an unknown sort")
        return self.storages.setdefault(key, _Storage(key, dtype))


def _rebuild(
    storage: Any, offset: int, shape: tuple, strides: tuple, *_: Any
) -> _Tensor:
    if not isinstance(storage, _Storage):
        raise Refused("a tensor without data")
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


def _dict(pairs: Iterable[tuple[Any, Any]] = ()) -> dict:
    """Make a dict, but not with tuples as keys: hashing deep ones ends Python."""
    pairs = list(pairs)
    if any(isinstance(key, tuple) for key, _ in pairs):
        raise Refused("it has tuples for names")
    return dict(pairs)


_BUILDERS = {
    "collections.OrderedDict": _dict,
    "torch._utils._rebuild_tensor": _rebuild,
    "torch._utils._rebuild_tensor_v2": _rebuild,
    "torch._utils._rebuild_parameter": lambda data, *_: data,
}
