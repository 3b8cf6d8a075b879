"""A file system in a file, as a share that can be unmounted under a run. Needs root.

Its folder stays behind when it is unmounted, empty and on this machine's disk, as in `/mnt`.
"""

import subprocess
from pathlib import Path
from typing import Self

SHARE_BYTES = 256 * 1024**2


class Share:
    """A mounted ext4 file system, from the construction of this object to the end of a `with`.

    Args:
        folder: folder for the file, and for the folder that the share is mounted on.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "share"
        self._image = folder / "share.ext4"
        self.path.mkdir()
        with self._image.open("wb") as image:
            image.truncate(SHARE_BYTES)
        run("mkfs.ext4", "-q", self._image)
        # One device for all mounts: two would damage the file system while an open file keeps the
        # unmounted one.
        self._device = run("losetup", "--find", "--show", self._image)
        self.mount()

    def mount(self) -> None:
        if not self.path.is_mount():
            run("mount", self._device, self.path)

    def unmount(self) -> None:
        """Unmount the share at once; files that are open in it stay open."""
        run("umount", "--lazy", self.path)

    def below(self) -> list[str]:
        """Return the names in the folder below an unmounted share, which must have none."""
        return [] if self.path.is_mount() else sorted(entry.name for entry in self.path.iterdir())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.path.is_mount():
            self.unmount()
        run("losetup", "--detach", self._device)


def run(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
