"""The tables of `nagfarm models`: each model, and whether its weights are on this machine."""

from collections.abc import Sequence

from jobs.cli.pattern.wording import table_lines
from jobs.manifest.model_catalog import ModelCatalog
from pipelines.catalog.files.sources import resolve_source
from pipelines.catalog.model_config import ModelConfig
from pipelines.errors import ModelNotFoundError, PipelineError

SHORT = ("model", "weights", "description")
LONG = (
    *("model", "weights", "pipeline", "inputs", "sound", "tokens", "grid", "default size"),
    *("steps", "method", "licence", "download", "place of the weights"),
)


def model_lines(catalog: ModelCatalog, *, is_long: bool) -> list[str]:
    """Return a line for each model, and behind them the faults of those that cannot render."""
    rows: list[Sequence[str]] = []
    faults: list[str] = []
    for name in catalog.names():
        config, state, place = None, "here", ""
        try:
            config = catalog.config(name)
            place = _source(catalog, config)
            weights = catalog.get(name).weights
            if weights.described is not None:
                state = "described"
            else:
                place = str(weights.folder)
        except PipelineError as error:
            state = "missing" if isinstance(error, ModelNotFoundError) else "broken"
            faults.append(str(error))
        if is_long:
            facts = [""] * (len(LONG) - 2) if config is None else [*_facts(config), place]
            rows.append((name, state, *facts))
        else:
            rows.append((name, state, "" if config is None else config.description))
    return [*table_lines(LONG if is_long else SHORT, rows), *faults]


def _source(catalog: ModelCatalog, config: ModelConfig) -> str:
    if config.source.startswith("package:"):
        return config.source
    return str(resolve_source(config.source, catalog.path(config.name)))


def _facts(config: ModelConfig) -> list[str]:
    """Return the cells of `LONG` between the state of the weights and their place."""
    pipeline, sampling, grid = config.pipeline_class, config.sampling, config.grid
    optional = [f"{name} (optional)" for name in sorted(pipeline.optional_inputs)]
    return [
        pipeline.name,
        ", ".join([*sorted(pipeline.required_inputs), *optional]) or "text",
        "yes" if pipeline.has_audio else "no",
        f"{config.max_sequence_length}",
        f"{grid.num_frames}n+1, {grid.width}x{grid.height}",
        f"{sampling.width}x{sampling.height}x{sampling.num_frames}, {sampling.fps:g} a second",
        f"{sampling.num_inference_steps}",
        config.method,
        config.licence or "not stated",
        "not known" if config.download_gb is None else f"{config.download_gb:g} GB",
    ]
