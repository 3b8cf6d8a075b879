"""From a `GenerationRequest` to `VideoFrames`, on stock diffusers pipelines."""
