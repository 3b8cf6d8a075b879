"""One clip on several devices, by the context parallelism of diffusers."""
