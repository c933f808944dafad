"""A quick look at image files: are they whole, and of a size that can be read?"""

import io

from PIL import Image

from rmjax.data.images import FORMATS, MAX_PIXELS, decode_rgb

# How files of these formats begin and end.
_ENDS = {b"\xff\xd8": b"\xff\xd9", b"\x89P": b"IEND\xaeB`\x82"}  # JPEG, PNG


def check_file(data: bytes, name: str = "image") -> None:
    """Check the header and the end of an image file, at a tenth of the cost of decoding.

    Files of other formats than JPEG and PNG, and those with a strange header or end,
    are decoded after all.

    Args:
        data: the encoded file.
        name: what error messages call it, such as its path.

    Raises:
        InputError: as `decode_rgb`; damage within the pixels goes unnoticed.
    """
    end = _ENDS.get(data[:2])
    tail = data[-64:].rstrip(b"\0\r\n")  # some writers pad
    if end is None or not tail.endswith(end):
        decode_rgb(data, name)
        return
    try:
        width, height = Image.open(io.BytesIO(data), formats=FORMATS[:2]).size
    except Exception:  # Pillow raises many types: the decoder says it in words
        width = height = MAX_PIXELS
    if width * height > MAX_PIXELS:
        decode_rgb(data, name)
