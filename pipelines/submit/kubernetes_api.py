"""The little of Kubernetes' API that submitting needs, with bounded retries."""

import json
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from urllib3 import Retry
from urllib3.exceptions import HTTPError

from pipelines.errors import InputError, TandemError, UnansweredError, WorkError
from pipelines.submit.training_job import Kind

__all__ = ["KubernetesApi", "is_away", "retries", "told"]

_ATTEMPTS = 5
_SECONDS_BETWEEN = 0.25
"""Doubled from one attempt to the next."""
_SECONDS_TO_ANSWER = 30
_SECONDS_TO_CONNECT = 5
"""Where nothing depends on it."""
_SECONDS_OF_SILENCE = 600
"""After which the connection that follows a log is taken for dead, and made anew."""


class _Retries(Retry):
    """After a silence what a POST asked for may have been done, so it is not asked for again."""

    def increment(
        self,
        method: str | None = None,
        url: str | None = None,
        response: Any = None,
        error: Exception | None = None,
        *others: Any,
        **named: Any,
    ) -> "_Retries":
        if method == "POST" and error is not None and self._is_read_error(error):
            raise error
        return super().increment(method, url, response, error, *others, **named)

    def is_retry(self, method: str, status_code: int, has_retry_after: bool = False) -> bool:
        if method == "POST" and status_code == HTTPStatus.GATEWAY_TIMEOUT:
            return False
        return super().is_retry(method, status_code, has_retry_after)


def retries() -> Retry:
    """For either API's client: a server that fails for some seconds is asked again, then given up.

    Asked again, too, are requests that create something, where the server says that it could not;
    a silence, after which it may have done so, is not taken for that. Other requests are asked
    once more after one.
    """
    return _Retries(
        total=_ATTEMPTS,
        read=1,
        backoff_factor=_SECONDS_BETWEEN,
        status_forcelist=[429, 500, 502, 503, 504],
        allowed_methods=None,
        raise_on_status=False,
    )


class KubernetesApi:
    """Jobs, their pods, these pods' logs and events, in one namespace."""

    def __init__(self, namespace: str, configuration: Any = None) -> None:
        """With a pod's own service account, else as kubectl is configured here.

        ``configuration`` is one of the ``kubernetes`` package's, in their place.

        Raises:
            InputError: if no cluster is known here.
        """
        from kubernetes import client

        found = configuration or _find_configuration()
        found.retries = retries()
        api = client.ApiClient(found)
        self.namespace = namespace
        self._objects = client.CustomObjectsApi(api)
        self._core = client.CoreV1Api(api)

    def create(self, kind: Kind, job: dict[str, Any]) -> None:
        """Create a job; one of its name that an earlier attempt has made counts as it.

        Raises:
            InputError: if the cluster refuses it, or lacks that kind of job.
            UnansweredError: if the cluster is away; the job may have been created.
        """
        from kubernetes.client import ApiException

        try:
            self._objects.create_namespaced_custom_object(
                *(kind.group, kind.version, self.namespace, kind.plural, job),
                _request_timeout=_SECONDS_TO_ANSWER,
            )
        except ApiException as error:
            if error.status != 409:
                raise self._refusal(kind, error, "the training job was not created") from None
        except HTTPError as error:
            raise _unreachable(error) from None

    def jobs(self, kind: Kind, selector: str) -> list[dict[str, Any]]:
        """The jobs of a label selector as they stand now.

        Raises:
            InputError: if the cluster does not let them be seen, or lacks that kind of job.
            UnansweredError: if the cluster is away.
        """
        from kubernetes.client import ApiException

        try:
            listed = self._objects.list_namespaced_custom_object(
                *(kind.group, kind.version, self.namespace, kind.plural),
                label_selector=selector,
                _request_timeout=_SECONDS_TO_ANSWER,
            )
        except ApiException as error:
            why = "the cluster does not list training jobs"
            raise self._refusal(kind, error, why) from None
        except HTTPError as error:
            raise _unreachable(error) from None
        return list(listed["items"])

    def job(self, kind: Kind, name: str) -> dict[str, Any]:
        """A job as it stands now.

        Raises:
            UnansweredError: if the cluster is away.
            WorkError: if it does not tell.
        """
        found: dict[str, Any] = self._asked(
            self._objects.get_namespaced_custom_object,
            *(kind.group, kind.version, self.namespace, kind.plural, name),
        )
        return found

    def delete(self, kind: Kind, name: str) -> None:
        """Delete a job and, in the background, its pods; nothing if it is gone.

        Raises:
            WorkError: if it was not deleted.
        """
        from kubernetes.client import ApiException

        try:
            self._objects.delete_namespaced_custom_object(
                *(kind.group, kind.version, self.namespace, kind.plural, name),
                _request_timeout=_SECONDS_TO_ANSWER,
            )
        except ApiException as error:
            if error.status != 404:
                raise _failure(error, f"job {name} was not deleted") from None
        except HTTPError as error:
            raise _unreachable(error) from None

    def pods(self, selector: str) -> list[Any]:
        """The pods of a label selector, as the ``kubernetes`` package describes them.

        Raises:
            UnansweredError: if the cluster is away.
            WorkError: if it does not tell.
        """
        listed = self._asked(
            self._core.list_namespaced_pod, self.namespace, label_selector=selector
        )
        return list(listed.items)

    def pod_events(self) -> list[dict[str, Any]]:
        """What has happened to pods of late, as the API's JSON has it.

        Raises:
            WorkError: if the cluster does not tell.
        """
        return self._events("involvedObject.kind=Pod", "what has happened to pods")

    def warnings(self) -> list[dict[str, Any]]:
        """What has gone wrong of late with anything but pods, as the API's JSON has it.

        Raises:
            WorkError: if the cluster does not tell.
        """
        return self._events("type=Warning,involvedObject.kind!=Pod", "what has gone wrong")

    def _events(self, selector: str, what: str) -> list[dict[str, Any]]:
        response = self._asked(
            *(self._core.list_namespaced_event, self.namespace),
            field_selector=selector,
            what=what,
            _preload_content=False,
            _request_timeout=(_SECONDS_TO_CONNECT, _SECONDS_TO_ANSWER),
        )
        try:
            return list(json.loads(response.data)["items"])
        except (HTTPError, ValueError, KeyError, TypeError):
            raise WorkError("what the Kubernetes API says of events is none") from None

    def last_lines(self, pod: str, count: int) -> list[str]:
        """The end of a pod's log; none if it is gone."""
        from kubernetes.client import ApiException

        try:
            text = self._core.read_namespaced_pod_log(
                pod, self.namespace, tail_lines=count, _request_timeout=_SECONDS_TO_ANSWER
            )
        except (ApiException, HTTPError):
            return []
        return str(text).splitlines()

    def follow(self, pod: str, after: str = "") -> Iterator[tuple[str, str]]:
        """A pod's log as it grows, to its end or until the connection breaks: time and line.

        Lines up to the time ``after`` are left out.
        """
        from kubernetes.client import ApiException

        try:
            response = self._core.read_namespaced_pod_log(
                *(pod, self.namespace),
                follow=True,
                timestamps=True,
                _preload_content=False,
                _request_timeout=(_SECONDS_TO_ANSWER, _SECONDS_OF_SILENCE),
            )
            rest = b""
            for part in response.stream(2**16):
                *whole, rest = (rest + part).split(b"\n")
                for line in whole:
                    when, _, said = line.decode(errors="replace").partition(" ")
                    if when > after:
                        yield when, said
        except (ApiException, HTTPError):
            return  # asked for again, from where it broke off

    def _refusal(self, kind: Kind, error: Any, otherwise: str) -> TandemError:
        """What an answer about a kind of job means; ``otherwise`` where it is no fault of ours."""
        if error.status == 404:
            return InputError(
                f"cluster.job_api: the cluster knows no {kind.name} ({kind.group}/"
                f"{kind.version}), or no namespace {self.namespace}"
            )
        if error.status in (400, 401, 403, 422):
            return InputError(f"the cluster refuses the training job: {told(error)}")
        return _failure(error, otherwise)

    def _asked(
        self, method: Any, *arguments: Any, what: str = "how the job goes", **options: Any
    ) -> Any:
        from kubernetes.client import ApiException

        try:
            return method(*arguments, **{"_request_timeout": _SECONDS_TO_ANSWER, **options})
        except ApiException as error:
            raise _failure(error, f"the cluster does not say {what}") from None
        except HTTPError as error:
            raise _unreachable(error) from None


def is_away(error: Any) -> bool:
    """Whether an API's refusal means that it cannot now, rather than that it will not."""
    return not error.status or error.status == 429 or error.status >= 500


def told(error: Any) -> str:
    """What an API says of a refusal, in one line: its message, without headers."""
    try:
        message = json.loads(error.body)["message"]
    except (TypeError, ValueError, KeyError):
        message = error.reason
    return f"{error.status} {' '.join(str(message).split())}"


def _find_configuration() -> Any:
    import yaml
    from kubernetes import client, config

    found = client.Configuration()
    try:
        config.load_incluster_config(found)
    except config.ConfigException:
        try:
            config.load_kube_config(client_configuration=found)
        # The last three: a file that is there, but is no configuration.
        except (config.ConfigException, OSError, yaml.YAMLError, TypeError, ValueError):
            raise InputError(
                "no Kubernetes cluster: this is no pod of one, and kubectl has no context here "
                "(KUBECONFIG, ~/.kube/config)"
            ) from None
    return found


def _failure(error: Any, what: str) -> WorkError:
    return (UnansweredError if is_away(error) else WorkError)(f"{what}: {told(error)}")


def _unreachable(error: HTTPError) -> UnansweredError:
    return UnansweredError(f"the Kubernetes API does not answer ({type(error).__name__})")
