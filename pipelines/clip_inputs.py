"""The images and videos that a clip begins with, as files and in memory. Loads without torch."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self, get_args

from pipelines.errors import RequestError

if TYPE_CHECKING:
    import numpy as np
    import torch

InputName = Literal["image", "last_image", "reference_images", "video", "mask"]
INPUT_NAMES: tuple[InputName, ...] = get_args(InputName)
Fit = Literal["cover", "contain", "stretch"]
MAX_REFERENCES = 8  # in one clip
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class InputFile:
    """An image or a video that a row names, known by its content.

    Args:
        sha256: digest of the file's bytes, in 64 hex digits. It alone is part of a clip's id.
        name: name of the file, without its folder, for people.

    Raises:
        RequestError: the digest is not one.
    """

    sha256: str
    name: str

    def __post_init__(self) -> None:
        if not _SHA256.fullmatch(self.sha256):
            raise RequestError.of("an input's sha256 must be 64 hex digits", "image")

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class InputFiles:
    """The images and videos that a clip begins with. The model decides which of them it takes.

    Args:
        image: first frame of the clip.
        last_image: last frame of the clip.
        reference_images: images of what the clip shows, such as a face or a product, at most 8.
        video: video that the clip changes or follows.
        mask: video, or one image for all frames, that is white where the model may change `video`.
        fit: treatment of an image or a video of other proportions than the clip: `cover` cuts its
            borders off, `contain` adds black borders, `stretch` changes its proportions.
    """

    image: InputFile | None = None
    last_image: InputFile | None = None
    reference_images: tuple[InputFile, ...] = ()
    video: InputFile | None = None
    mask: InputFile | None = None
    fit: Fit = "cover"

    def __post_init__(self) -> None:
        if len(self.reference_images) > MAX_REFERENCES:
            raise RequestError.of(
                f"reference_images must be at most {MAX_REFERENCES}, "
                f"not {len(self.reference_images)}",
                "reference_images",
            )

    def given(self) -> dict[InputName, tuple[InputFile, ...]]:
        """Return the files that are given, by the field that names them."""
        one: dict[InputName, InputFile | None] = {
            "image": self.image,
            "last_image": self.last_image,
            "video": self.video,
            "mask": self.mask,
        }
        found: dict[InputName, tuple[InputFile, ...]]
        found = {name: (file,) for name, file in one.items() if file is not None}
        if self.reference_images:
            found["reference_images"] = self.reference_images
        return found

    def files(self) -> tuple[InputFile, ...]:
        """Return all files, each content once."""
        found = {file.sha256: file for files in self.given().values() for file in files}
        return tuple(found.values())


NO_FILES = InputFiles()


@dataclass(frozen=True, eq=False)
class ClipInputs:
    """The images and videos of a clip in memory: uint8 tensors on the CPU, in RGB.

    All but the reference images have the clip's size.

    Args:
        image, last_image: (H, W, 3).
        reference_images: each (h, w, 3), in its own size.
        video: (T, H, W, 3), as many frames as the clip.
        mask: (T, H, W), 255 where the model may change `video`, otherwise 0.
    """

    image: "torch.Tensor | None" = None
    last_image: "torch.Tensor | None" = None
    reference_images: "tuple[torch.Tensor, ...]" = ()
    video: "torch.Tensor | None" = None
    mask: "torch.Tensor | None" = None

    @classmethod
    def of_arrays(
        cls,
        *,
        image: "np.ndarray | None",
        last_image: "np.ndarray | None",
        reference_images: "tuple[np.ndarray, ...]",
        video: "np.ndarray | None",
        mask: "np.ndarray | None",
    ) -> Self:
        """Return the inputs from arrays of numpy, which are copied."""
        import torch

        def tensor(array: "np.ndarray | None") -> "torch.Tensor | None":
            return None if array is None else torch.tensor(array)

        references = tuple(torch.tensor(one) for one in reference_images)
        return cls(tensor(image), tensor(last_image), references, tensor(video), tensor(mask))


NO_INPUTS = ClipInputs()
