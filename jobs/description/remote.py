"""Ask a Ray cluster for the description of a model whose weights are not on this machine.

A machine of the cluster, such as a head, asks the nodes one after another, those with GPUs first.
Any other machine, with RAY_ADDRESS=http://HEAD:8265 as for `ray job submit`, has a small job do
that. The answer is kept in the user's cache, so that later plans need no cluster.
"""

import os
import shlex
import shutil
import tempfile
from pathlib import Path

from jobs.cluster.connection import connected
from jobs.cluster.job_access import output_of_job
from jobs.cluster.joined_cluster import ClusterView, ask_node
from jobs.cluster.reach import existing_cluster
from jobs.description.files import from_lines, pack, read_contents, save_fetched
from jobs.errors import NoClusterError, NodeSilentError
from jobs.run.progress.long_work import long_work
from jobs.text import counted
from pipelines.catalog.description import describe
from pipelines.catalog.model_config import ModelConfig
from pipelines.catalog.model_folder import inspect_model
from pipelines.errors import ModelNotFoundError

ANSWER_S = 1800.0  # a node may have to hash its weights first
MAX_ASKED = 16  # nodes of one kind are alike
REMEDY = (
    "--remote asks a cluster that is running: set RAY_ADDRESS to http://HEAD:8265, or on a machine "
    "of the cluster to HOST:PORT of its control service"
)


def fetch_description(config: ModelConfig, config_path: Path) -> Path:
    """Fetch the description of a model, and return its folder in the user's cache.

    Raises:
        ModelNotFoundError: no node has the weights.
        PipelineError: a node has them and cannot use them.
        NoClusterError: no cluster answers.
    """
    url = os.environ.get("RAY_ADDRESS", "")
    with long_work(f"asking the cluster for {config.name}"):
        if url.startswith(("http://", "https://")):
            packed = _by_job(url, config, config_path)
        elif existing_cluster() is None:
            raise NoClusterError(REMEDY)
        else:
            with connected() as cluster:
                packed = _of_nodes(cluster.look(), config, config_path)
    return save_fetched(packed, config.name)


def packed_description(config: ModelConfig, config_path: Path) -> bytes:
    """Return the packed description of a model whose weights are on this machine.

    Raises:
        PipelineError: they are not, or cannot be used.
    """
    weights = inspect_model(config, config_path)
    description = describe(config, config_path, weights)
    return pack(description, read_contents(weights.folder, description))


def asked_nodes(view: ClusterView) -> list[str]:
    """Return the nodes to ask, those with most GPUs first."""
    nodes = [node for node in view.nodes if node not in view.draining]
    return sorted(nodes, key=lambda node: -view.nodes[node].get("GPU", 0))[:MAX_ASKED]


def _of_nodes(view: ClusterView, config: ModelConfig, config_path: Path) -> bytes:
    nodes = asked_nodes(view)
    reason: Exception | None = None
    for node in nodes:
        try:
            return ask_node(node, ANSWER_S, packed_description, config, config_path)
        except (ModelNotFoundError, NodeSilentError) as error:
            reason = error
    raise ModelNotFoundError(
        f"{config.name}: {counted(len(nodes), 'node')} of the cluster asked, and none has its "
        f"weights{f': {reason}' if reason else ''}; start a node that has them, or describe the "
        "model where they are: nagfarm models --describe"
    )


def _by_job(url: str, config: ModelConfig, config_path: Path) -> bytes:
    with tempfile.TemporaryDirectory(prefix="nagfarm-") as folder:
        shutil.copy(config_path, folder)
        command = ["nagfarm", "models", "--models=.", "--describe", config.name, "--remote"]
        lines = output_of_job(url, shlex.join([*command, "--packed"]), Path(folder), ANSWER_S)
    packed = from_lines(lines)
    if packed is None:
        raise NoClusterError(f"the job of {url} printed no description of {config.name}")
    return packed
