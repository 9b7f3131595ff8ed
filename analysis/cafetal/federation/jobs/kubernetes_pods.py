"""Parsl's provider of Kubernetes pods, from the model of an endpoint."""

from __future__ import annotations

from parsl.errors import OptionalModuleMissing
from parsl.providers import KubernetesProvider

from cafetal.endpoints.batch_models import KubernetesEndpoint
from cafetal.errors import ConfigError


def make_pods(endpoint: KubernetesEndpoint, workers: int, worker_init: str) -> KubernetesProvider:
    """Return the Parsl provider that starts the pods of an endpoint, one worker pool in each.

    A pod gets what it asks for and no more, as a pool that is killed for want of memory costs more than it saves.

    Args:
        workers: number of workers of a pod.
        worker_init: shell lines for all pods, before those of the user.

    Raises:
        ConfigError: if the ``kubernetes`` package is not installed, or finds no cluster.
    """
    cores = endpoint.cores or workers
    memory = f"{endpoint.memory or 2 * workers}G"
    try:
        return KubernetesProvider(
            image=endpoint.image,
            namespace=endpoint.namespace,
            init_blocks=1,
            min_blocks=0,
            max_blocks=endpoint.jobs,
            init_cpu=cores,
            max_cpu=cores,
            init_mem=memory,
            max_mem=memory,
            worker_init=f"{worker_init}\n{endpoint.worker_init}",
            pod_name="cafetal",
            user_id=None if endpoint.user is None else str(endpoint.user),
            group_id=None if endpoint.group is None else str(endpoint.group),
            secret=endpoint.pull_secret,
            persistent_volumes=list(endpoint.volumes.items()),
            service_account_name=endpoint.service_account,
        )
    except OptionalModuleMissing:
        raise ConfigError("`kind: kubernetes` needs `pip install 'cafetal[kubernetes]'` on this machine.") from None
    except Exception as error:
        if type(error).__name__ != "ConfigException":  # of a package that need not be there
            raise
        raise ConfigError(
            f"No Kubernetes cluster was found ({error}). Set KUBECONFIG, or run Cafetal in a pod of the cluster."
        ) from None
