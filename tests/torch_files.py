"""Files as `torch.save` writes them, made without torch: opcodes of pickle by hand."""

import io
import struct
import zipfile
from pathlib import Path

import numpy as np

STORAGES = {"f4": "FloatStorage", "f2": "HalfStorage", "i8": "LongStorage"}


def save_zip(path: Path, content: dict, compression: int = zipfile.ZIP_STORED) -> None:
    """Write a dict in the format of torch 1.6 and later."""
    data = []
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled(content, data))
        for key, array in enumerate(data):
            archive.writestr(f"archive/data/{key}", array.tobytes("A"))
        archive.writestr("archive/byteorder", "little")


def save_old(path: Path, content: dict) -> None:
    """Write a dict in the format before torch 1.6."""
    data = []
    file = io.BytesIO()
    for part in (0x1950A86A20F9469CFC6C, 1001, {}):
        file.write(pickled(part, []))
    file.write(pickled(content, data))
    file.write(pickled([str(key) for key in range(len(data))], []))
    for array in data:
        file.write(struct.pack("<q", array.size) + array.tobytes("A"))
    path.write_bytes(file.getvalue())


class Call:
    """A call that reading the pickle asks for."""

    def __init__(self, function: str, *arguments):
        self.function, self.arguments = function, arguments


def pickled(value, data: list) -> bytes:
    """Return a pickle of `value`; the arrays in it go to `data`."""
    return b"\x80\x02" + _opcodes(value, data) + b"."


def _opcodes(value, data: list) -> bytes:
    if isinstance(value, np.ndarray):
        return _tensor(value, data)
    if isinstance(value, Call):
        arguments = _opcodes(value.arguments, data)
        return _global(value.function) + arguments + b"R"
    if isinstance(value, dict):
        pairs = [_opcodes(part, data) for item in value.items() for part in item]
        return b"}(" + b"".join(pairs) + b"u"
    if isinstance(value, list):
        return b"](" + b"".join(_opcodes(part, data) for part in value) + b"e"
    if isinstance(value, tuple):
        return b"(" + b"".join(_opcodes(part, data) for part in value) + b"t"
    if isinstance(value, bool) or value is None:
        return {True: b"\x88", False: b"\x89", None: b"N"}[value]
    if isinstance(value, int):
        number = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
        return b"\x8a" + bytes([len(number)]) + number
    if isinstance(value, float):
        return b"G" + struct.pack(">d", value)
    text = value.encode()
    return b"X" + struct.pack("<I", len(text)) + text


def _global(name: str) -> bytes:
    module, _, name = name.rpartition(".")
    return f"c{module}\n{name}\n".encode()


def _tensor(array: np.ndarray, data: list) -> bytes:
    """A tensor is a call on a storage, which is named and lies elsewhere."""
    kind = _global(f"torch.{STORAGES[array.dtype.str[1:]]}")
    key, place = _opcodes(str(len(data)), []), _opcodes("cpu", [])
    size = _opcodes(array.size, [])
    storage = b"(" + _opcodes("storage", []) + kind + key + place + size + b"tQ"
    strides = tuple(s // array.itemsize for s in array.strides)
    data.append(array)
    rest = [0, array.shape, strides, False, Call("collections.OrderedDict")]
    arguments = storage + b"".join(_opcodes(part, []) for part in rest)
    return _global("torch._utils._rebuild_tensor_v2") + b"(" + arguments + b"tR"
