"""The tests that refuse black, flat, frozen, noisy or NaN clips."""
