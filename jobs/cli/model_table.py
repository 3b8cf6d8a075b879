"""The tables of `nagfarm models`: each model, and whether its weights are on this machine."""

from collections.abc import Sequence

from jobs.cli.pattern.wording import table_lines
from jobs.manifest.model_catalog import WITHOUT_WEIGHTS, ModelCatalog
from pipelines.catalog.files.sources import resolve_source
from pipelines.catalog.model_config import ModelConfig
from pipelines.errors import ModelNotFoundError, PipelineError

SHORT = ("model", "weights", "description")
# Two tables of `--long`, each narrow enough for a terminal: a clip, and the weights.
CLIP = ("model", "weights", "inputs", "sound", "default size", "steps", "method")
WEIGHTS = ("model", "tokens", "grid", "download", "licence", "pipeline", "place of the weights")
FETCH = "nagfarm models --fetch NAME downloads missing weights from the hub, with the model's LoRAs"


def model_lines(catalog: ModelCatalog, *, is_long: bool) -> list[str]:
    """Return a line for each model, and behind them the faults of those that cannot render.

    With `is_long` a model has a line in each of two tables; an empty line parts them.
    """
    short: list[Sequence[str]] = []
    clips: list[Sequence[str]] = []
    weights: list[Sequence[str]] = []
    faults: list[str] = []
    is_missing = False
    for name in catalog.names():
        config, state, place = None, "here", ""
        try:
            config = catalog.config(name)
            place = _source(catalog, config)
            found = catalog.get(name).weights
            if found.described is not None:
                state = "described"
            else:
                place = str(found.folder)
        except ModelNotFoundError as error:
            state, is_missing = "missing", True
            alone = error.__cause__  # without the remedy that is said once, below
            faults.append(str(alone if isinstance(alone, ModelNotFoundError) else error))
        except PipelineError as error:
            state = "broken"
            faults.append(str(error))
        short.append((name, state, "" if config is None else config.description))
        clips.append((name, state, *([""] * 5 if config is None else _of_clip(config))))
        weights.append((name, *([""] * 6 if config is None else [*_of_weights(config), place])))
    if is_missing:
        faults += [FETCH, WITHOUT_WEIGHTS]
    tables = table_lines(SHORT, short)
    if is_long:
        tables = [*table_lines(CLIP, clips), "", *table_lines(WEIGHTS, weights)]
    return [*tables, *([""] if faults else []), *faults]


def _source(catalog: ModelCatalog, config: ModelConfig) -> str:
    if config.source.startswith("package:"):
        return config.source
    return str(resolve_source(config.source, catalog.path(config.name)))


def _of_clip(config: ModelConfig) -> list[str]:
    """Return the cells of `CLIP` behind the state of the weights; optional inputs in brackets."""
    pipeline, sampling = config.pipeline_class, config.sampling
    optional = [f"[{name}]" for name in sorted(pipeline.optional_inputs)]
    return [
        ", ".join(["text", *sorted(pipeline.required_inputs), *optional]),
        "yes" if pipeline.has_audio else "no",
        f"{sampling.width}x{sampling.height}x{sampling.num_frames}, {sampling.fps:g} fps",
        f"{sampling.num_inference_steps}",
        config.method,
    ]


def _of_weights(config: ModelConfig) -> list[str]:
    """Return the cells of `WEIGHTS` between the name and the place."""
    grid, download = config.grid, config.download_gb
    in_package = config.source.startswith("package:")
    return [
        f"{config.max_sequence_length}",
        f"{grid.num_frames}n+1, {grid.width}x{grid.height}",
        "none" if in_package else "not known" if download is None else f"{download:g} GB",
        config.licence or "not stated",
        config.pipeline_class.name,
    ]
