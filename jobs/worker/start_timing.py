"""The start of a worker, timed part by part in a fresh process: `nagfarm doctor --timing`.

`time_start` runs this module as a program, which loads the model as a worker does and prints its
timings. Ray's own share, the start of a process that has Ray, is left out.
"""

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jobs.errors import RefusedError
from jobs.worker.provenance import VERSIONED_PACKAGES
from jobs.worker.setup import DiffusersLoader
from nagfarm import ROOT
from pipelines.catalog.model_folder import ModelWeights
from pipelines.catalog.model_loras import LoraWeights
from pipelines.catalog.model_yaml import load_model_config
from pipelines.load_progress import LoadProgress, PartTiming

WORDS = {
    "verify": "verify weights, beside the imports",
    "shapes": "check names and shapes of weights",
    "read": "read weights onto the device",
    "install": "install LoRAs and guidance",
}
MODULE = "jobs.worker.start_timing"


@dataclass(frozen=True)
class StartTiming:
    """The duration of a start.

    Args:
        process_s: Python and nagfarm's own modules.
        parts: the parts of the load, in the order of their beginnings.
        whole_s: seconds from the start of the process until the model is loaded.
        cpu_s: CPU seconds of the process, all threads together.
        libraries: the libraries that were imported, of those that records name.
    """

    process_s: float
    parts: tuple[PartTiming, ...]
    whole_s: float
    cpu_s: float
    libraries: tuple[str, ...]

    def rows(self) -> list[tuple[str, float]]:
        """Return the parts in words with their seconds, the whole and its CPU seconds last."""
        loading = [
            (f"import {one.detail}" if one.part == "import" else WORDS[one.part], one.duration_s)
            for one in self.parts
        ]
        in_turn_s = sum(one.duration_s for one in self.parts if one.part != "verify")
        return [
            ("Python and nagfarm", self.process_s),
            *loading,
            ("the rest, such as waiting", self.whole_s - self.process_s - in_turn_s),
            ("whole start", self.whole_s),
            ("its CPU seconds", self.cpu_s),
        ]


def time_start(config_path: Path, weights: ModelWeights, num_threads: int) -> StartTiming:
    """Load a model in a fresh process, and return where its time went.

    Args:
        config_path: the model's YAML.
        weights: its inspected weights.
        num_threads: torch's threads.

    Raises:
        RefusedError: the model could not be loaded; the message is the last line of the process.
    """
    loras = [(str(lora.path), lora.revision) for lora in weights.loras]
    asked = {
        "config": str(config_path.resolve()),
        "folder": str(weights.folder),
        "revision": weights.revision,
        "loras": loras,
        "num_threads": num_threads,
        "started_at": time.time(),
    }
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    finished = subprocess.run(
        [sys.executable, "-P", "-m", MODULE],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": path},
    )
    if finished.returncode:
        lines = finished.stderr.strip().splitlines() or [f"exit code {finished.returncode}"]
        raise RefusedError(f"{config_path.stem} cannot be loaded: {lines[-1]}")
    answer: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    parts = tuple(PartTiming(**part) for part in answer["parts"])
    libraries = tuple(answer["libraries"])
    return StartTiming(answer["process_s"], parts, answer["whole_s"], answer["cpu_s"], libraries)


def _load_and_time() -> None:
    begun_at = time.time()
    asked: dict[str, Any] = json.load(sys.stdin)
    loras = tuple(LoraWeights(Path(path), revision) for path, revision in asked["loras"])
    weights = ModelWeights(Path(asked["folder"]), asked["revision"], loras)
    progress = LoadProgress()
    config = load_model_config(Path(asked["config"]))
    DiffusersLoader().load_model(config, weights, asked["num_threads"], progress)
    parts = sorted(progress.timings, key=lambda part: part.started_at)
    answer = {
        "process_s": begun_at - asked["started_at"],
        "parts": [asdict(part) for part in parts],
        "whole_s": time.time() - asked["started_at"],
        "cpu_s": time.process_time(),
        "libraries": [name for name in VERSIONED_PACKAGES[1:] if name in sys.modules],
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    _load_and_time()
