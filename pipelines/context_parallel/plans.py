"""Where a transformer's tensors are cut and put together again: one diffusers plan for each family.

Diffusers' own plan for LTX cuts the text and its mask too. With a mask, which LTX's pipeline always passes, ulysses
then fails and ring attends to a part of the prompt; the negative prompt that NAG packs behind it is cut in the middle.
Here the text is whole on every rank, as in Wan, and cross-attention needs no exchange.
"""

from typing import Any

from diffusers import LTXVideoTransformer3DModel, WanTransformer3DModel
from diffusers.models._modeling_parallel import ContextParallelInput, ContextParallelOutput

Plan = dict[
    str, Any
]  # submodule to what is done there; diffusers' own type does not fit its own plans

LTX_PLAN: Plan = {
    "": {"hidden_states": ContextParallelInput(split_dim=1, expected_dims=3)},
    "rope": {
        0: ContextParallelInput(split_dim=1, expected_dims=3, split_output=True),
        1: ContextParallelInput(split_dim=1, expected_dims=3, split_output=True),
    },
    "proj_out": ContextParallelOutput(gather_dim=1, expected_dims=3),
}


def plan_of(transformer: Any, has_timestep_per_token: bool) -> Plan:
    """The plan for a Wan or an LTX transformer.

    Args:
        transformer: a `WanTransformer3DModel` or an `LTXVideoTransformer3DModel`.
        has_timestep_per_token: whether the pipeline gives each token a timestep of its own (Wan 2.2 5B), which is cut
            with the tokens. One for all tokens is not, and diffusers would log that it is not.
    """
    if isinstance(transformer, LTXVideoTransformer3DModel):
        return LTX_PLAN
    assert isinstance(transformer, WanTransformer3DModel)
    plan: Plan = dict(WanTransformer3DModel._cp_plan)
    if not has_timestep_per_token:
        del plan[""]
    return plan
