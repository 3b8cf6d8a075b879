"""The transformers of a pipeline, and the points where their tensors are split and gathered.

Each family has one plan in diffusers' terms. Diffusers' own plan for LTX splits the text and its
mask too. With a mask, which LTX's pipeline always passes, ulysses then fails and a ring attends to
a part of the prompt; the negative prompt that NAG appends to the prompt is split in the middle.
Here the text is whole on every rank, as in Wan, and cross-attention needs no exchange.
"""

from typing import Any

from diffusers import (
    LTXVideoTransformer3DModel,
    WanTransformer3DModel,
    WanVACETransformer3DModel,
)
from diffusers.models._modeling_parallel import ContextParallelInput, ContextParallelOutput

# Inputs and outputs to split or gather, by submodule. Diffusers' type does not fit its own plans.
Plan = dict[str, Any]

LTX_PLAN: Plan = {
    "": {"hidden_states": ContextParallelInput(split_dim=1, expected_dims=3)},
    "rope": {
        0: ContextParallelInput(split_dim=1, expected_dims=3, split_output=True),
        1: ContextParallelInput(split_dim=1, expected_dims=3, split_output=True),
    },
    "proj_out": ContextParallelOutput(gather_dim=1, expected_dims=3),
}
# Diffusers has no plan for VACE. The blocks that follow the control video have its tokens beside
# those of the clip; only the first of them reads the latter.
_VACE_BLOCK: Plan = {
    "vace_blocks.0": {
        "hidden_states": ContextParallelInput(split_dim=1, expected_dims=3),
        "control_hidden_states": ContextParallelInput(split_dim=1, expected_dims=3),
    },
}


def transformers_of(pipeline: Any) -> dict[str, Any]:
    """Return the transformers of a diffusers pipeline by the names of their components.

    Returns:
        One transformer, or two for a model whose early and late steps have one each (Wan 2.2).
    """
    found = {name: getattr(pipeline, name, None) for name in ("transformer", "transformer_2")}
    return {name: transformer for name, transformer in found.items() if transformer is not None}


def plan_of(transformer: Any, has_timestep_per_token: bool) -> Plan:
    """Return the plan for a Wan or an LTX transformer.

    Args:
        transformer: a `WanTransformer3DModel`, a `WanVACETransformer3DModel` or an
            `LTXVideoTransformer3DModel`.
        has_timestep_per_token: True if the pipeline gives each token its own timestep (Wan 2.2 5B),
            which is split with the tokens. One timestep for all tokens is not split, and diffusers
            would log this.
    """
    if isinstance(transformer, LTXVideoTransformer3DModel):
        return LTX_PLAN
    plan: Plan = dict(WanTransformer3DModel._cp_plan)
    if not has_timestep_per_token:
        del plan[""]
    if isinstance(transformer, WanVACETransformer3DModel):
        return plan | _VACE_BLOCK
    assert isinstance(transformer, WanTransformer3DModel)
    return plan
