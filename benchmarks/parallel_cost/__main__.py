"""`python -m benchmarks.parallel_cost PREFIX` writes docs/measurements/parallel-cost."""

from benchmarks.parallel_cost.report import main

main()
