"""Which of diffusers' attention backends can be shared out among ranks. Loads without torch.

nagfarm sets no backend; the environment's `DIFFUSERS_ATTN_BACKEND` can.
"""

DEFAULT_BACKEND = "native"
# those that diffusers registers with `supports_context_parallel`; a test compares the two
SPLITTABLE_BACKENDS = frozenset({
    "native", "_native_cudnn", "_native_flash", "_native_npu", "flash", "flash_hub", "flash_varlen_hub",
    "_flash_3_hub", "_flash_3_varlen_hub", "sage", "sage_hub",
})  # fmt: skip
# a ring adds up parts of one softmax and needs each part's log-sum-exp; for `native`, `ring_attention` supplies it
RING_BACKENDS = SPLITTABLE_BACKENDS - {"_native_npu"}
# that add a mask of numbers to the logits. Others raise; `_native_npu` reads it as yes/no and leaves out the prompt
BIAS_BACKENDS = frozenset({"native", "_native_cudnn"})


def backends_for(ring: int, *, has_text_bias: bool = False) -> frozenset[str]:
    """The backends that a group with this many ranks in its ring can use; 1 is no ring.

    Args:
        has_text_bias: something is added to the logits of the text.
    """
    splittable = SPLITTABLE_BACKENDS if ring == 1 else RING_BACKENDS
    return splittable & BIAS_BACKENDS if has_text_bias else splittable
