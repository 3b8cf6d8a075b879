"""The tables and plots of docs/measurements/parallel-cost."""
