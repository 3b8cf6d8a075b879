"""The start of a worker's process: what it imports, and how."""

import gc
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.worker.setup import without_garbage_collection

ROOT = Path(__file__).parents[3]


def test_garbage_collection_waits_for_imports_and_goes_on_even_after_an_error() -> None:
    with without_garbage_collection():
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ModuleNotFoundError), without_garbage_collection():
        raise ModuleNotFoundError
    assert gc.isenabled()


def test_garbage_collection_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        with without_garbage_collection():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_a_worker_imports_no_model_and_no_s3_before_it_needs_them() -> None:
    program = (
        "import sys, jobs.worker.clip_worker\n"
        "libraries = ('torch', 'diffusers', 'boto3', 'botocore')\n"
        "sys.exit(' '.join(name for name in libraries if name in sys.modules) or 0)"
    )
    finished = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
