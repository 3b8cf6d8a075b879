"""Simulated runs beside real ones, and the cost of a simulation."""
