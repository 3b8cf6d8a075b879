"""The order of the passes in the stock pipelines: which call of the model is the prompt's.

Loads without torch. Classifier-free guidance adds an unconditional pass, which must stay unguided.
A pipeline that is not listed is guided without classifier-free guidance, or where it names its
calls; else it is refused.
"""

from typing import Any, Literal

Passes = Literal["named", "batched", "prompt first"]
"""The way in which a pipeline tells its passes apart.

named: by `cache_context`. batched: one call a step, the unconditional half before the prompt's.
prompt first: one call a pass, the prompt's before all others.
"""

PASSES: dict[str, Passes] = {
    **dict.fromkeys(("WanPipeline", "WanImageToVideoPipeline", "WanVACEPipeline"), "named"),
    "LucyEditPipeline": "named",
    **dict.fromkeys(("WanVideoToVideoPipeline", "ChronoEditPipeline"), "prompt first"),
    "WanAnimatePipeline": "named",
    **dict.fromkeys(("SkyReelsV2Pipeline", "SkyReelsV2ImageToVideoPipeline"), "named"),
    **dict.fromkeys(
        (
            "SkyReelsV2DiffusionForcingPipeline",
            "SkyReelsV2DiffusionForcingImageToVideoPipeline",
            "SkyReelsV2DiffusionForcingVideoToVideoPipeline",
        ),
        "named",
    ),
    **dict.fromkeys(("LTXPipeline", "LTXImageToVideoPipeline", "LTXConditionPipeline"), "batched"),
    **dict.fromkeys(("LTX2Pipeline", "LTX2ImageToVideoPipeline", "LTX2ConditionPipeline"), "named"),
    **dict.fromkeys(("LTX2InContextPipeline", "LTX2HDRPipeline"), "named"),
}


def passes_of(pipeline: Any) -> Passes | None:
    """Return the passes of a pipeline; None if its loop is not that of a listed class."""
    for kind in type(pipeline).__mro__:
        if kind.__name__ in PASSES and kind.__module__.startswith("diffusers."):
            return PASSES[kind.__name__] if type(pipeline).__call__ is kind.__call__ else None
    return None
