"""Whether the model packs are whole, answered quickly: weights are hashed again only when their file has changed."""

from __future__ import annotations

import threading

from hepamap.errors import PackDamagedError
from hepamap.model_pack import ModelPack

_Stamp = tuple[int, int, int]


class PackChecker:
    """Remembers which weights were whole; may be used by many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: dict[str, tuple[_Stamp, PackDamagedError | None]] = {}

    def verify(self, pack: ModelPack) -> None:
        """As `ModelPack.verify`, but reads the weights only where they may have changed.

        Raises:
            PackDamagedError: they are not those of the manifest.
        """
        path = pack.folder / pack.manifest.weights.file
        try:
            status = path.stat()
        except OSError as error:
            raise PackDamagedError(
                f"The weights of {pack.name} cannot be read: {error.strerror}.", cure="Install the pack again."
            ) from error
        stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
        key = f"{path}:{pack.manifest.weights.sha256}"
        with self._lock:
            if self._seen.get(key, (None, None))[0] != stamp:
                self._seen[key] = (stamp, _failure(pack))
            failure = self._seen[key][1]
        if failure is not None:
            raise PackDamagedError(failure.message, cure=failure.cure)


def _failure(pack: ModelPack) -> PackDamagedError | None:
    """What is wrong with the weights as they are.

    Raises:
        PackDamagedError: they cannot be read now. The file need not change for that to pass, as with a share that is away.
    """
    try:
        pack.verify()
    except PackDamagedError as error:
        if isinstance(error.__cause__, OSError):
            raise
        return error
    return None
