"""The gallery of a server: read again when its files have changed, and enrolled into."""

from collections.abc import Sequence
from pathlib import Path
from threading import Lock

from rmjax.data.image_files import ImageFile
from rmjax.errors import InputError
from rmjax.gallery.ask import (
    Asker,
    change_gallery,
    check_fingerprints,
    check_network,
    enrol_files,
    load_asker,
)
from rmjax.gallery.store import FILE, Gallery, load_gallery
from rmjax.inference.attributor import Attributor
from rmjax.utils.locks import Busy


class NotEnrolled(InputError):
    """What was sent can't be enrolled; the message holds no path of this machine."""


class Shelf:
    """A gallery in a folder, which need not be there yet.

    Args:
        folder: of the gallery.
        model: the network it is of.

    Raises:
        InputError: it is another network's or damaged, or the network makes no
            fingerprints.
    """

    def __init__(self, folder: str | Path, model: Attributor):
        check_fingerprints(model)
        self._folder = Path(folder)
        self._model = model
        self._lock = Lock()
        self._version: tuple[int, int] | None = None
        self._asker: Asker | None = None
        self.asker()

    def asker(self) -> Asker | None:
        """Return the gallery as it is by now, ready to be asked; None of an empty one.

        Raises:
            InputError: it is another network's by now, or damaged.
        """
        with self._lock:
            version = self._find_version()
            if version != self._version:
                self._asker = self._load() if version else None
                self._version = version
            return self._asker

    def enrol(self, name: str, files: Sequence[ImageFile]) -> int:
        """Enrol images as a generator's; return how many it has by now.

        Runs the network.

        Raises:
            NotEnrolled: as `enrol_files` does.
            Busy: another process is changing the gallery.
            InputError: the gallery can't be made, read or written.
        """

        def change(gallery: Gallery) -> Gallery:
            try:
                return enrol_files(gallery, self._model, name, files)
            except InputError as error:
                raise NotEnrolled(str(error)) from error

        try:
            gallery = change_gallery(self._folder, self._model, change)
        except Busy:
            # Its own message holds the folder and the host.
            raise Busy(
                "the gallery is being changed by another command: send it again"
            ) from None
        return next(len(g.images) for g in gallery.generators if g.name == name)

    def _find_version(self) -> tuple[int, int] | None:
        try:
            status = (self._folder / FILE).stat()
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_mtime_ns

    def _load(self) -> Asker | None:
        gallery = load_gallery(self._folder)
        check_network(gallery, self._model)
        if not gallery.generators:
            return None
        return load_asker(self._folder, self._model)
