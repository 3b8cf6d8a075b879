"""The table of diffusers' prompt pipelines, with those that nag guides.

`python -m docs.nag_pipelines` writes docs/reference/nag-pipelines.md. A test compares the page with
the installed diffusers, so that a new release shows its new pipelines.
"""

from pathlib import Path

import diffusers

from nag.installation.support import PipelineSupport, prompt_pipelines

PAGE = Path(__file__).parent / "reference" / "nag-pipelines.md"
HEAD = """# Pipelines that nag guides

`nag` guides {supported} of the {total} pipelines of diffusers {version} that take a prompt.
`nag.supported()` returns the first table. `python -m docs.nag_pipelines` writes this page.

*Passes* says how guidance tells the prompt's pass from the unconditional one. `named`: the pipeline
names its calls. `batched`: both halves are rows of one call; perturbed rows (PAG) behind them stay
unguided. `prompt first`: two calls a step. `prompt half`: one call, the prompt's rows first.
`prompt third`: one call, the prompt's rows before two thirds without it. `prompt last`: one call,
the prompt's rows behind one or two parts without it. `single`: one pass only.

| pipeline | model | passes |
|---|---|---|
"""
REST = """
## Not guided

| pipeline | model | why |
|---|---|---|
"""


def page() -> str:
    """Return the page for the installed diffusers."""
    pipelines = prompt_pipelines()
    guided = [one for one in pipelines if one.is_supported]
    head = HEAD.format(supported=len(guided), total=len(pipelines), version=diffusers.__version__)
    rows = "".join(_row(one, one.passes or "") for one in guided)
    rest = "".join(_row(one, one.reason) for one in pipelines if not one.is_supported)
    return head + rows + REST + rest


def _row(one: PipelineSupport, last: str) -> str:
    return f"| `{one.name}` | {', '.join(f'`{model}`' for model in one.models)} | {last} |\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE}")
