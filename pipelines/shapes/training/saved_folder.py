"""The folder of a trained model, as others will read it."""

import json
from pathlib import Path


def forget_paths(folder: Path) -> None:
    """Delete the paths of this machine that a saved pipeline notes in its configurations."""
    for path in [*folder.rglob("config.json"), *folder.rglob("model_index.json")]:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("_name_or_path", None) is not None:
            path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
