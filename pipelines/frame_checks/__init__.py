"""The tests that refuse black, flat, frozen, noisy, silent or NaN clips."""
