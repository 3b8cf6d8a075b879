"""The images and videos of one manifest: found, checked and hashed, each of them once.

A walk over a million rows, and each further walk, reads a file once; later it looks at the file's
state alone. A file that has other content than before is refused, since the plan that was made
would not be the one that is rendered.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from jobs.errors import InputError, JobError, RowValueError
from jobs.inputs.places import Place, place_of_input
from jobs.media.input_images import MAX_IMAGE_BYTES, check_image
from jobs.media.input_videos import MAX_VIDEO_BYTES, check_video, is_video
from jobs.text import shown
from pipelines.clip_inputs import INPUT_NAMES, InputFile, InputName
from pipelines.errors import RequestError
from pipelines.regular_files import open_regular_file
from pipelines.request import GenerationRequest

ReadS3 = Callable[[str], bytes]
_FIELDS_OF_VIDEOS: tuple[InputName, ...] = ("video", "mask")
_FIELDS_OF_IMAGES: tuple[InputName, ...] = ("image", "last_image", "reference_images")
MAX_THREADS = 8  # each holds the pixels of an image


@dataclass(frozen=True, slots=True)
class _Known:
    """A file that was checked.

    Args:
        state: numbers that change with the content of a file; none for an object of S3.
    """

    place: Place
    state: tuple[int, ...]
    file: InputFile


class CheckedInputs:
    """The images and videos that the rows of one manifest name.

    Args:
        folder: folder of the manifest; a URI for a manifest in S3.
        read_s3: reads the object at a URI; None without S3.
    """

    def __init__(self, folder: Path | str, read_s3: ReadS3 | None) -> None:
        self._folder = folder
        self._read_s3 = read_s3
        self._known: dict[tuple[bool, str], _Known] = {}  # by name; True for a field of a video
        self._places: dict[str, Place] = {}  # by digest
        self._num_frames: dict[str, int] = {}  # by digest of a video

    def __len__(self) -> int:
        """Return the number of files with different contents."""
        return len(self._places)

    def resolve(self, given: dict[str, Any]) -> dict[str, Any]:
        """Return the values of a row with an `InputFile` in the place of each written name.

        Raises:
            RequestError: a file is not allowed, missing, or not an image or a video.
        """
        found: dict[str, Any] = {}
        for name in INPUT_NAMES:
            written: str | tuple[str, ...] | None = given.get(name)
            if isinstance(written, str):
                found[name] = self._file(name, written)
            elif name == "reference_images" and name in given:
                found[name] = tuple([self._file(name, one) for one in written or ()])
        return given | found if found else given

    def read_ahead(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Check the new images of some rows, several at a time; `resolve` tells their faults.

        Args:
            rows: values of rows, of which some name images.
        """
        new = {
            (name, one)
            for row in rows
            if not row.keys().isdisjoint(_FIELDS_OF_IMAGES)
            for name in _FIELDS_OF_IMAGES
            if (written := row.get(name))
            for one in ((written,) if isinstance(written, str) else written)
            if (False, one) not in self._known
        }
        if len(new) < 2:
            return

        def read(named: tuple[InputName, str]) -> None:
            with suppress(RequestError):
                self._file(*named)

        num_threads = min(MAX_THREADS, len(os.sched_getaffinity(0)))
        with ThreadPoolExecutor(num_threads, thread_name_prefix="inputs") as threads:
            list(threads.map(read, new))

    def check(self, request: GenerationRequest) -> None:
        """Refuse a mask without a video, and a video with fewer frames than the clip.

        Raises:
            RequestError: the request is one of these.
        """
        if request.inputs.mask and not request.inputs.video:
            raise RequestError.of("mask needs a video, which it is a mask of", "mask")
        wanted = request.shape.num_frames
        for name in _FIELDS_OF_VIDEOS:
            file = getattr(request.inputs, name)
            num_frames = self._num_frames.get(file.sha256) if file else None
            if num_frames is not None and num_frames < wanted:
                raise RequestError.of(
                    f"{name} {shown(file.name)} has {num_frames:,} frames, and the clip "
                    f"num_frames {wanted:,}: give a longer one, or lower num_frames",
                    name,
                    "num_frames",
                )

    def content(self, file: InputFile) -> bytes:
        """Read a file again.

        Raises:
            InputError: it is gone, or has other content than when it was checked.
            JobError: S3 does not answer.
        """
        place = self._places[file.sha256]
        try:
            content = self._read(place, MAX_VIDEO_BYTES)[0]
        except OSError as error:
            raise InputError(f"{place} cannot be read: {error.strerror}") from error
        if hashlib.sha256(content).hexdigest() != file.sha256:
            raise InputError(f"{place} was changed after the plan was made; run it again")
        return content

    def _file(self, field: InputName, written: str) -> InputFile:
        try:
            return self._find(field, written)
        except RowValueError as error:
            raise RequestError.of(str(error), field) from error
        except (JobError, OSError, ValueError) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
            verb = "" if isinstance(error, InputError) else "cannot be read: "
            raise RequestError.of(f"{field} {shown(written)}: {verb}{reason}", field) from error

    def _find(self, field: InputName, written: str) -> InputFile:
        """Return a file; read it only if it is new or its state is another one."""
        key = field in _FIELDS_OF_VIDEOS, written
        known = self._known.get(key)
        if known is not None and known.state == _state_of(known.place):
            return known.file
        place = place_of_input(field, written, self._folder)
        content, state = self._read(place, _max_bytes(field))
        sha256 = hashlib.sha256(content).hexdigest()
        if known is None:
            self._check(field, content, sha256)
            file = InputFile(sha256, PurePosixPath(written).name)
        elif sha256 == known.file.sha256:
            file = known.file
        else:
            raise InputError("the file was changed after it was read; run the command again")
        self._places.setdefault(sha256, place)
        self._known[key] = _Known(place, state, file)
        return file

    def _check(self, field: InputName, content: bytes, sha256: str) -> None:
        if field == "video" or (field == "mask" and is_video(content)):
            self._num_frames[sha256] = check_video(content)
        else:
            check_image(content)

    def _read(self, place: Place, max_bytes: int) -> tuple[bytes, tuple[int, ...]]:
        """Return the content of a file and its state.

        Raises:
            InputError: it is larger.
            OSError, ValueError: it is missing, not a regular file, or cannot be read.
            JobError: S3 does not answer, or has no such object.
        """
        if isinstance(place, str):
            if self._read_s3 is None:
                raise InputError("S3 is not available here")
            content, state = self._read_s3(place), ()
        else:
            with open_regular_file(place) as file:
                state = _state(os.fstat(file.fileno()))
                content = file.read(max_bytes + 1)
        if len(content) > max_bytes:
            raise InputError(f"the file is larger than {max_bytes:,} bytes")
        return content, state


def _max_bytes(field: InputName) -> int:
    return MAX_VIDEO_BYTES if field in _FIELDS_OF_VIDEOS else MAX_IMAGE_BYTES


def _state_of(place: Place) -> tuple[int, ...]:
    return () if isinstance(place, str) else _state(place.stat())


def _state(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
