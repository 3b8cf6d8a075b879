"""The keys of a model's YAML that fit it on a smaller card. Loads without torch.

They change the place of weights and not the results: a clip is the same, bit for bit, with and
without them. So none of them is part of a clip's id.
"""

from typing import Literal

from pipelines.errors import ModelConfigError

Offload = Literal["none", "text_encoder"]


def check_offload(offload: Offload, device: str) -> None:
    """Refuse an offload that would change nothing.

    Raises:
        ModelConfigError: the model is for CPUs, which have no second memory.
    """
    if offload != "none" and device == "cpu":
        raise ModelConfigError(
            f"offload: {offload} needs a CUDA device, and the model has device: cpu: leave it out"
        )
