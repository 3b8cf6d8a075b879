"""The images and videos of a clip, decoded and brought to its size, in the caller's thread.

Decides how a mask is read: white is a pixel of at least half the brightness.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from jobs.errors import InputError
from jobs.media.fitting import fit_picture
from jobs.media.input_images import read_image
from jobs.media.input_videos import is_video, read_video
from pipelines.clip_inputs import NO_INPUTS, ClipInputs, InputFile
from pipelines.request import GenerationRequest

if TYPE_CHECKING:
    import numpy as np


def read_inputs(request: GenerationRequest, content_of: Callable[[str], bytes]) -> ClipInputs:
    """Return the inputs of a clip as tensors.

    Args:
        content_of: returns the bytes of a digest.

    Raises:
        InputError: an input does not decode, or a video has too few frames.
        StoreError: as `content_of`.
    """
    import numpy as np

    files, shape = request.inputs, request.shape
    if not files.given():
        return NO_INPUTS

    def fitted(picture: "np.ndarray") -> "np.ndarray":
        return fit_picture(picture, shape.width, shape.height, files.fit)

    def image(file: InputFile | None) -> "np.ndarray | None":
        return None if file is None else fitted(_image(file, content_of))

    def video(file: InputFile) -> "np.ndarray":
        content = content_of(file.sha256)
        try:
            return np.stack([fitted(frame) for frame in read_video(content, shape.num_frames)])
        except InputError as error:
            raise InputError(f"{file.name}: {error}") from error

    def mask(file: InputFile) -> "np.ndarray":
        if is_video(content_of(file.sha256)):
            return _mask(video(file))
        picture = _mask(fitted(_image(file, content_of)))
        return np.broadcast_to(picture, (shape.num_frames, *picture.shape))

    return ClipInputs.of_arrays(
        image=image(files.image),
        last_image=image(files.last_image),
        reference_images=tuple(_image(one, content_of) for one in files.reference_images),
        video=None if files.video is None else video(files.video),
        mask=None if files.mask is None else mask(files.mask),
    )


def _image(file: InputFile, content_of: Callable[[str], bytes]) -> "np.ndarray":
    try:
        return read_image(content_of(file.sha256))
    except InputError as error:
        raise InputError(f"{file.name}: {error}") from error


def _mask(pictures: "np.ndarray") -> "np.ndarray":
    """Return pictures (..., 3) as 255 where they are bright, otherwise 0."""
    import numpy as np

    brightness = pictures @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    return np.where(brightness >= 127.5, 255, 0).astype(np.uint8)
