"""One clip on several devices: sequence parallelism through diffusers, with guidance. docs/parallel.md describes it."""
