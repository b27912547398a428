"""The Kubernetes API: whether there is one, how it is reached, and what its refusals say."""

import os
from pathlib import Path
from typing import Any, Literal

import msgspec

ANSWER_WITHIN = (5.0, 30.0)
"""Seconds that the API has to take a connection, and to answer."""

_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


class ApiError(Exception):
    """The API refused, or did not answer; *status* is that of HTTP, 0 where there was none."""

    def __init__(self, reason: str, status: int = 0) -> None:
        self.status = status
        super().__init__(reason)


def is_in_cluster() -> bool:
    """Say whether this runs in a pod that may ask its API."""
    return bool(os.environ.get("KUBERNETES_SERVICE_HOST")) and _ACCOUNT.exists()


def is_used(setting: Path | Literal["auto", "off"]) -> bool:
    """Say whether the API is asked, by the *setting* COREMON_KUBERNETES."""
    return is_in_cluster() if setting == "auto" else setting != "off"


def connect(kubeconfig: Path | None) -> Any:
    """Give a `kubernetes.client.CoreV1Api`, by *kubeconfig* or else as a pod of the cluster.

    Its import costs some 30 MiB, so it is done only where there is an API. Raises `ApiError`.
    """
    from kubernetes import client, config

    configuration = client.Configuration()
    load: Any = config
    try:
        if kubeconfig:
            load.load_kube_config(str(kubeconfig), client_configuration=configuration)
        else:
            load.load_incluster_config(client_configuration=configuration)
    except Exception as error:  # a file that is no YAML, or other YAML, raises anything
        reason = str(error) or type(error).__name__
        raise ApiError(f"{kubeconfig}: {reason}" if kubeconfig else reason) from error
    configuration.retries = 0  # whoever asks tries again by itself
    return client.CoreV1Api(client.ApiClient(configuration))


def as_api_error(error: Exception) -> ApiError:
    """Put what the client raised into the API's own words, where it said something."""
    status = getattr(error, "status", None) or 0
    body = getattr(error, "body", None) or b""
    try:
        said = msgspec.json.decode(body, type=_Refusal).message
    except (msgspec.MsgspecError, UnicodeDecodeError, TypeError):
        said = ""
    text = said or getattr(error, "reason", None) or str(error)
    return ApiError(str(text) or type(error).__name__, int(status))


class _Refusal(msgspec.Struct):
    """A core/v1 Status."""

    message: str = ""
