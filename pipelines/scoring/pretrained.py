"""Loading of transformers' models and processors for measures, from safetensors alone.

Nothing is downloaded, no code of a folder runs, and a weight that a folder lacks is an error: it
would be drawn at random.
"""

from pathlib import Path
from typing import Any

import torch

from pipelines.errors import ScoringError

# Buffers that older files hold or lack; weights are something else.
BUFFERS = ("position_ids",)


def load_model(auto_class: Any, folder: Path, device: torch.device, **options: Any) -> Any:
    """Return a model in float32, ready to compute.

    Args:
        auto_class: transformers' class, or its Auto class.

    Raises:
        ScoringError: transformers cannot load the folder, or it lacks weights.
    """
    from transformers.utils import logging

    logging.disable_progress_bar()  # it would break the lines of a log
    try:
        model, found = auto_class.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.float32,
            output_loading_info=True,
            **options,
        )
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, TypeError) as error:
        raise ScoringError(f"{folder} cannot be loaded: {_first_line(error)}") from error
    refuse_missing(folder, found["missing_keys"])
    return model.eval().to(device)


def refuse_missing(folder: Path, missing: Any) -> None:
    """Refuse weights that a folder lacks. Raises ScoringError."""
    lacking = sorted(name for name in missing if not name.endswith(BUFFERS))
    if lacking:
        raise ScoringError(
            f"{folder} lacks {len(lacking)} weights, such as {lacking[0]}, which would be drawn at "
            "random: name a folder of this kind of model"
        )


def load_processor(auto_class: Any, folder: Path, **options: Any) -> Any:
    """Return a tokenizer or an image processor; images are processed by Pillow.

    Raises:
        ScoringError: transformers cannot load it.
    """
    try:
        return auto_class.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, **options
        )
    except Exception as error:  # tokenizers raises Exception itself
        raise ScoringError(
            f"{folder} has no {auto_class.__name__.removeprefix('Auto')} that can be loaded: "
            f"{_first_line(error)}"
        ) from error


def load_image_processor(folder: Path) -> Any:
    """Return the image processor of a folder, which works with Pillow on every machine alike."""
    from transformers import AutoImageProcessor

    return load_processor(AutoImageProcessor, folder, backend="pil")


def load_tokenizer(folder: Path) -> Any:
    """Return the tokenizer of a folder."""
    from transformers import AutoTokenizer

    return load_processor(AutoTokenizer, folder)


def pixels_of(processor: Any, stills_NHWC: Any, device: torch.device) -> torch.Tensor:
    """Return pictures as a model takes them, (N, C, H, W)."""
    inputs = processor(images=list(stills_NHWC), return_tensors="pt")
    return inputs["pixel_values"].to(device)


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
