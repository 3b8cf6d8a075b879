"""Write the files of this folder that follow from others: `python -m infra.dashboards`.

`nagfarm-board.json` is the board of `board.py`, and `prometheus-rule.yaml` has the alerts of
`rules.yaml` for the Prometheus operator.
"""

import json
from pathlib import Path
from typing import Any

import yaml

from infra.dashboards.board import board

FOLDER = Path(__file__).parent
HEADER = "# Made of rules.yaml by `python -m infra.dashboards`, for the Prometheus operator.\n"


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as such, and lists below their keys."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, indentless=False)


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, "|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def files() -> dict[str, str]:
    """Return the content of each file by its name."""
    rules: Any = yaml.safe_load((FOLDER / "rules.yaml").read_text())
    prometheus_rule = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "nagfarm", "labels": {"app.kubernetes.io/name": "nagfarm"}},
        "spec": rules,
    }
    dumped = yaml.dump(prometheus_rule, Dumper=_Dumper, sort_keys=False, width=1000)
    return {
        "nagfarm-board.json": json.dumps(board(), indent=1) + "\n",
        "prometheus-rule.yaml": HEADER + dumped,
    }


def main() -> None:
    """Write the files."""
    for name, content in files().items():
        (FOLDER / name).write_text(content)


if __name__ == "__main__":
    main()
