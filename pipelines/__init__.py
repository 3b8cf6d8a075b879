"""From a `GenerationRequest` to `VideoFrames`, on stock diffusers pipelines. Its interface: `types`, `config`, `family`."""
