"""The tables, plots and contact sheets of a benchmark."""
