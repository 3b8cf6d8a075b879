"""Imports all that the ranks' work needs, for the server that forks the ranks."""

from importlib import import_module

from jobs.worker.setup import without_garbage_collection

with without_garbage_collection():
    for name in (
        "tests.fakes.rank_cases",
        f"{__package__}.accelerated_ranks",
        f"{__package__}.cases",
    ):
        import_module(name)
