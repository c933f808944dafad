"""How much one client may ask of the server, and all together."""

from dataclasses import dataclass

from rmjax.utils.checks import check_at_least


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of requests.

    What is beyond one is refused with an error.

    Attributes:
        max_bytes: of a request
        max_pixels: of an image, by its header
        max_images: of a request
        max_requests: read or answered at once; further ones are told to come again
        upload_seconds: until a request has to be there
    """

    max_bytes: int = 32 * 2**20
    max_pixels: int = 40_000_000
    max_images: int = 32
    max_requests: int = 64
    upload_seconds: float = 60.0

    def check(self) -> None:
        """Check that something can be asked for within them.

        Raises:
            InputError: a number is too small.
        """
        check_at_least(
            1,
            max_bytes=self.max_bytes,
            max_pixels=self.max_pixels,
            max_images=self.max_images,
            max_requests=self.max_requests,
        )
        check_at_least(0.1, upload_seconds=self.upload_seconds)
