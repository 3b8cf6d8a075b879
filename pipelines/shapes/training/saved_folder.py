"""The folder of a trained model, as others will read it."""

import json
from pathlib import Path
from typing import Any

import torch


def save_folder(pipeline: Any, folder: Path) -> None:
    """Write a pipeline with its denoiser and autoencoder in float16, which halves the folder.

    Its text encoder stays in float32: transformers, unlike diffusers, would load and run it in the
    precision in which it is stored. The pipeline itself keeps these precisions.
    """
    for part in (pipeline.transformer, pipeline.vae):
        part.to(torch.float16)
    pipeline.save_pretrained(folder)
    forget_paths(folder)


def forget_paths(folder: Path) -> None:
    """Delete the paths of this machine that a saved pipeline notes in its configurations."""
    for path in [*folder.rglob("config.json"), *folder.rglob("model_index.json")]:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("_name_or_path", None) is not None:
            path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
