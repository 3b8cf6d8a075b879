"""The tables and plots of docs/parallel-cost."""
