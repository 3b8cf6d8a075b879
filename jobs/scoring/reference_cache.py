"""The distributions of reference pictures, computed once on a machine and kept in the user's cache.

An entry holds for one measure with its weights and for the bytes of all pictures. A cache that is
missing, damaged or another user's costs time and nothing else. Loads without torch.
"""

import contextlib
import hashlib
import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.scoring.references import References
from pipelines.private_folders import FILE_FLAGS, is_own_file, open_private_folder, user_folder
from pipelines.scoring.measures import MeasureSpec

if TYPE_CHECKING:
    from pipelines.scoring.frechet import Gaussian

FOLDER_NAME = "nagfarm-references"
MAX_ENTRIES = 32
MAX_ENTRY_BYTES = 300_000_000  # a covariance of 6,000 features has 288 MB


@dataclass(frozen=True)
class ReferenceCache:
    """The distributions that this machine knows.

    Args:
        folder: the cache, which is made when it is missing.
    """

    folder: Path

    @classmethod
    def of_user(cls) -> "ReferenceCache":
        return cls(user_folder(FOLDER_NAME))

    def read(self, digest: str) -> "Gaussian | None":
        """Return a distribution; None if the cache lacks it or cannot be trusted."""
        from safetensors import SafetensorError
        from safetensors.numpy import load

        from pipelines.scoring.frechet import Gaussian

        with (
            suppress(OSError, SafetensorError, KeyError, ValueError),
            open_private_folder(self.folder) as folder,
        ):
            entry = os.open(digest, os.O_RDONLY | FILE_FLAGS, dir_fd=folder)
            with os.fdopen(entry, "rb") as file:
                if not is_own_file(os.fstat(entry)):
                    return None
                found = load(file.read(MAX_ENTRY_BYTES))
            mean, covariance = found["mean"], found["covariance"]
            if covariance.shape == (len(mean), len(mean)):
                return Gaussian(int(found["num"][0]), mean, covariance)
        return None

    def write(self, digest: str, gaussian: "Gaussian") -> None:
        """Keep a distribution, and remove the oldest ones; a full disk keeps nothing."""
        import numpy as np
        from safetensors.numpy import save

        content = save(
            {
                "num": np.array([gaussian.num]),
                "mean": np.ascontiguousarray(gaussian.mean),
                "covariance": np.ascontiguousarray(gaussian.covariance),
            }
        )
        if len(content) >= MAX_ENTRY_BYTES:
            return
        with suppress(OSError):
            self.folder.parent.mkdir(0o700, parents=True, exist_ok=True)
        partial = f".{digest}.partial"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | FILE_FLAGS
        with suppress(OSError), open_private_folder(self.folder, makes=True) as folder:
            try:
                with os.fdopen(os.open(partial, flags, 0o600, dir_fd=folder), "wb") as file:
                    file.write(content)
                os.replace(partial, digest, src_dir_fd=folder, dst_dir_fd=folder)
                _remove_oldest(folder)
            except OSError:
                with contextlib.suppress(OSError):
                    os.unlink(partial, dir_fd=folder)


def digest_of(spec: MeasureSpec, references: References) -> str:
    """Return the digest of a measure and of all pictures.

    Raises:
        RefusedError: a picture cannot be read.
    """
    seen = {**asdict(spec), "version": spec.kind.version}
    whole = hashlib.sha256(json.dumps(seen, sort_keys=True).encode())
    for name, content in references.files():
        whole.update(f"\n{name}\0{hashlib.sha256(content).hexdigest()}".encode())
    return whole.hexdigest()


def _remove_oldest(folder: int) -> None:
    entries = sorted(
        os.scandir(folder), key=lambda one: one.stat(follow_symlinks=False).st_mtime_ns
    )
    for entry in entries[:-MAX_ENTRIES]:
        os.unlink(entry.name, dir_fd=folder)
