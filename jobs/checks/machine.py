"""The checks of one machine. Loads without torch; only `check_devices` imports it."""

import importlib.metadata
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jobs.checks.clock import MAX_SKEW_S, ahead_s, clock_text
from jobs.errors import JobError
from jobs.media.decode_check import check_mp4, decoder_version
from jobs.media.encode import encode_mp4
from jobs.media.ffmpeg import find_ffmpeg
from jobs.settings.run_config import EncodingConfig, StoreConfig
from jobs.store.store import open_store
from jobs.text import shown
from jobs.worker.provenance import VERSIONED_PACKAGES
from nagfarm import OVERWRITTEN, ROOT, foreign_packages, is_nag_overwritten
from pipelines.request import VideoFrames, VideoShape

TRIED_SHAPE = VideoShape(num_frames=5, height=32, width=32)
TRIED_FPS = 8.0
NVIDIA_DEVICES = "nvidia[0-9]*"  # below /dev


@dataclass(frozen=True)
class Check:
    """One finding. `is_ok` is None if it is worth knowing and does not prevent a run."""

    name: str
    is_ok: bool | None
    message: str

    @property
    def mark(self) -> str:
        return {True: "ok", False: "FAIL", None: "note"}[self.is_ok]


def check_packages() -> list[Check]:
    """Return the versions of the libraries, and the packages of others that bear our names."""
    try:
        found = ", ".join(f"{name} {version}" for name, version in package_versions().items())
    except importlib.metadata.PackageNotFoundError as error:
        message = f"{error.name} is not installed; pip install nagfarm"
        return [Check("packages", is_ok=False, message=message)]
    notes = [
        Check("packages", None, f"{shown(place, 300)} is not nagfarm's, which uses its own {name}")
        for name, place in foreign_packages().items()
    ]
    if is_nag_overwritten():
        message = f"{shown(ROOT / 'nag', 300)} {OVERWRITTEN}"
        notes.append(Check("packages", is_ok=False, message=message))
    return [Check("packages", is_ok=True, message=found), *notes]


def package_versions() -> Mapping[str, str]:
    """Return the versions of nagfarm and the libraries that can change pixels.

    Raises:
        PackageNotFoundError: one is not installed.
    """
    return {name: importlib.metadata.version(name) for name in VERSIONED_PACKAGES}


def check_ffmpeg() -> Check:
    """Encode a clip as a worker does."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            _encode(Path(folder, "clip.mp4"))
    except (JobError, OSError) as error:
        return Check("ffmpeg", is_ok=False, message=str(error))
    return Check("ffmpeg", is_ok=True, message=f"{find_ffmpeg()} encodes")


def check_decoder() -> Check:
    """Encode a clip and decode it as a worker does."""
    try:
        version = decoder_version()
        with tempfile.TemporaryDirectory() as folder:
            _encode(Path(folder, "clip.mp4"))
            check_mp4(Path(folder, "clip.mp4"), TRIED_SHAPE, TRIED_FPS)
    except (JobError, OSError) as error:
        return Check("decord", is_ok=False, message=str(error))
    return Check("decord", is_ok=True, message=f"{version} decodes")


def _encode(path: Path) -> None:
    import numpy as np

    shape = (TRIED_SHAPE.num_frames, TRIED_SHAPE.height, TRIED_SHAPE.width, 3)
    video = VideoFrames(np.full(shape, 128, np.uint8), TRIED_FPS)
    encode_mp4(video, path, EncodingConfig(preset="ultrafast"), {"title": "doctor"})


def check_devices() -> Check:
    """Look for GPUs with torch."""
    import torch

    if not torch.cuda.is_available():
        return Check(
            "GPUs",
            is_ok=None,
            message="none; only the models that run on a CPU (shapes-*) work here",
        )
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return Check("GPUs", is_ok=True, message=", ".join(names))


def check_store(output: str, config: StoreConfig) -> Check:
    """Write, read and list in an output, and leave nothing there."""
    try:
        open_store(output, config).check_access()
    except JobError as error:
        return Check("store", is_ok=False, message=str(error))
    return Check("store", is_ok=True, message=f"{output} can be written, read and listed")


def check_clock(output: str, config: StoreConfig) -> Check:
    """Compare this machine's clock with the store's."""
    try:
        store = open_store(output, config)
        ahead = ahead_s(store)
    except JobError as error:
        return Check("clock", is_ok=False, message=str(error))
    if abs(ahead) > MAX_SKEW_S:
        message = f"{clock_text(ahead)} the clock of {output}; set it, as by NTP"
        return Check("clock", is_ok=False, message=message)
    message = f"within {MAX_SKEW_S:g} s of the clock of {output}"
    return Check("clock", is_ok=True, message=message)
