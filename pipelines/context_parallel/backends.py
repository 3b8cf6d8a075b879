"""The attention backends of diffusers that support context parallelism. Loads without torch.

nagfarm sets no backend; the environment's `DIFFUSERS_ATTN_BACKEND` can.
"""

DEFAULT_BACKEND = "native"
# The backends that diffusers registers with `supports_context_parallel`; a test compares the two.
SHARDABLE_BACKENDS = frozenset({
    "native", "_native_cudnn", "_native_flash", "_native_npu", "flash", "flash_hub",
    "flash_varlen_hub", "_flash_3_hub", "_flash_3_varlen_hub", "sage", "sage_hub",
})  # fmt: skip
# A ring adds up parts of one softmax and needs each part's log-sum-exp; `ring_attention` supplies
# it for `native`.
RING_BACKENDS = SHARDABLE_BACKENDS - {"_native_npu"}
# Backends that add a mask of numbers to the logits. The others raise, but `_native_npu` reads it
# as yes or no and leaves out the prompt.
BIAS_BACKENDS = frozenset({"native", "_native_cudnn"})


def backends_for(ring: int, *, has_text_bias: bool = False) -> frozenset[str]:
    """Return the backends that a group can use.

    Args:
        ring: the number of ranks in the ring; 1 without a ring.
        has_text_bias: True if a mask or a bias is added to the logits of the text.
    """
    shardable = SHARDABLE_BACKENDS if ring == 1 else RING_BACKENDS
    return shardable & BIAS_BACKENDS if has_text_bias else shardable
