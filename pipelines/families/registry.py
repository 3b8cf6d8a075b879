"""The class that drives each family, and the functions that load a model.

Decides what a process imports for a model: the classes of its family alone, and PEFT only for
LoRAs. Loads without torch.
"""

import sys
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from typing import TYPE_CHECKING

from pipelines.catalog.keys.memory_config import QUANTIZATION_LIBRARIES, library_of
from pipelines.catalog.keys.pipeline_classes import PipelineClass
from pipelines.catalog.model_config import ModelConfig
from pipelines.catalog.model_folder import ModelWeights
from pipelines.load_progress import LoadProgress

if TYPE_CHECKING:
    from pipelines.families.diffusers_model import DiffusersModel


def driver_of(pipeline: PipelineClass) -> "type[DiffusersModel]":
    """Import and return the class that drives a pipeline class of diffusers."""
    from pipelines.families.diffusers_model import DiffusersModel

    module, _, name = pipeline.driver.partition(".")
    driver = getattr(import_module(f"pipelines.families.{module}"), name)
    assert issubclass(driver, DiffusersModel)
    return driver


def import_family(config: ModelConfig, progress: LoadProgress) -> None:
    """Import all that a model needs, one library after the other, in a process of its own.

    A process that has imported diffusers for a model without LoRAs can load none with LoRAs.
    """
    with progress.part("import", "torch"):
        import torch  # noqa: F401  # pyright: ignore[reportUnusedImport]
    with progress.part("import", "transformers"):
        import transformers  # noqa: F401  # pyright: ignore[reportUnusedImport]
    needed = {"peft" if config.loras else None, library_of(config)}
    with ExitStack() as stack:
        for library in ("peft", *QUANTIZATION_LIBRARIES):
            stack.enter_context(_hidden(library, is_hidden=library not in needed))
        with progress.part("import", "diffusers"):
            import diffusers  # noqa: F401  # pyright: ignore[reportUnusedImport]
        with progress.part("import", f"{config.family} pipeline"):
            driver_of(config.pipeline_class)


def load_model(
    config: ModelConfig,
    weights: ModelWeights,
    num_threads: int,
    progress: LoadProgress | None = None,
) -> "DiffusersModel":
    """Load a model whose folder was inspected.

    Args:
        config: the model.
        weights: the folder of its weights.
        num_threads: torch's threads in the calling thread, which must be the one that renders. The
            same number on every worker of a machine makes a clip the same on each.
        progress: receives the parts of the load.
    """
    return _load(config, weights, num_threads, progress, has_text=True)


def load_denoiser(
    config: ModelConfig,
    weights: ModelWeights,
    num_threads: int,
    progress: LoadProgress | None = None,
) -> "DiffusersModel":
    """Load a model without its text encoder, for the ranks that receive embeddings."""
    return _load(config, weights, num_threads, progress, has_text=False)


def _load(
    config: ModelConfig,
    weights: ModelWeights,
    num_threads: int,
    progress: LoadProgress | None,
    *,
    has_text: bool,
) -> "DiffusersModel":
    import torch

    torch.set_num_threads(num_threads)
    model = driver_of(config.pipeline_class)
    return model.load(config, weights, progress or LoadProgress(), has_text=has_text)


@contextmanager
def _hidden(module: str, *, is_hidden: bool) -> Generator[None]:
    """Let an optional library seem to be missing, unless it is imported already.

    Python takes None in `sys.modules` for a module that does not exist. Diffusers imports such
    libraries wherever it finds them: PEFT takes a tenth of the time of all imports, and torchao
    writes warnings.
    """
    if not is_hidden or module in sys.modules or "diffusers" in sys.modules:
        yield
        return
    sys.modules[module] = None  # pyright: ignore[reportArgumentType]
    try:
        yield
    finally:
        del sys.modules[module]
