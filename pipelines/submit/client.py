"""Kubeflow Pipelines' API: upload, create a run, and say how it goes; with bounded retries."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from urllib3.exceptions import HTTPError, MaxRetryError

from pipelines.errors import InputError, UnansweredError, WorkError
from pipelines.submit.credentials import COOKIE_VARIABLE, TOKEN_VARIABLE, Credentials
from pipelines.submit.kubernetes_api import is_away, retries, told

__all__ = ["KfpClient"]

_SECONDS_TO_ANSWER = 60


class KfpClient:
    """One server, asked as one user."""

    def __init__(self, host: str, namespace: str, credentials: Credentials) -> None:
        """``namespace`` counts where the server has many users; it says so itself.

        Raises:
            InputError: if the host is no address, or its server lets nobody in so.
            WorkError: if the server does not answer.
        """
        import kfp_server_api as kfp

        if not host.startswith(("http://", "https://")):
            raise InputError(f"--host {host}: must begin with http:// or https://")
        configuration = kfp.Configuration(host=host.rstrip("/"))
        configuration.retries = retries()
        if credentials.current_token() is not None:
            configuration.api_key_prefix["authorization"] = "Bearer"

            def renew(current: Any) -> None:
                current.api_key["authorization"] = credentials.current_token()

            renew(configuration)
            configuration.refresh_api_key_hook = renew
        api = kfp.ApiClient(configuration, cookie=credentials.cookie)
        self.host = configuration.host
        self._api = api
        self._experiments = kfp.ExperimentServiceApi(api)
        self._uploads = kfp.PipelineUploadServiceApi(api)
        self._pipelines = kfp.PipelineServiceApi(api)
        self._runs = kfp.RunServiceApi(api)
        many_users = self._many_users(kfp.HealthzServiceApi(api).healthz_service_get_healthz)
        self._namespace = namespace if many_users else None

    def upload(self, name: str, file: Path, version: str | None = None) -> tuple[str, str, str]:
        """Make a pipeline of a compiled file, or a new version of the one that has the name.

        Returns the ids of pipeline and version, and what the version is called: as ``version``
        says, else by the time. The first one is called by the pipeline's name.

        Raises:
            InputError: if the version's name is taken.
        """
        from kfp_server_api import ApiException

        try:
            made = self._asked(
                self._uploads.upload_pipeline, str(file), name=name, passing=409, **self._place()
            )
        except ApiException:
            return self._new_version(name, file, version)
        return self._first_version(made)

    def experiment(self, name: str) -> str:
        """The id of the experiment of that name, made if it is not there."""
        import kfp_server_api as kfp

        wanted = {"operation": "EQUALS", "key": "name", "stringValue": name}
        listed = self._asked(
            self._experiments.experiment_service_list_experiments,
            filter=json.dumps({"predicates": [wanted]}),
            **self._place(),
        )
        for each in listed.experiments or []:
            if each.display_name == name:
                return str(each.experiment_id)
        asked = kfp.V2beta1Experiment(display_name=name, **self._place())
        made = self._asked(self._experiments.experiment_service_create_experiment, asked)
        return str(made.experiment_id)

    def start(
        self,
        name: str,
        experiment_id: str,
        pipeline_id: str,
        version_id: str,
        service_account: str | None,
        pipeline_root: str | None,
    ) -> str:
        """Run a version of a pipeline; returns the run's id."""
        import kfp_server_api as kfp

        run = kfp.V2beta1Run(
            display_name=name,
            experiment_id=experiment_id,
            pipeline_version_reference=kfp.V2beta1PipelineVersionReference(
                pipeline_id=pipeline_id, pipeline_version_id=version_id
            ),
            runtime_config=kfp.V2beta1RuntimeConfig(pipeline_root=pipeline_root),
            service_account=service_account,
        )
        made = self._asked(self._runs.run_service_create_run, run)
        return str(made.run_id)

    def run(self, run_id: str) -> Any:
        """A run and its tasks as they stand now.

        Raises:
            UnansweredError: if the server is away.
        """
        return self._asked(self._runs.run_service_get_run, run_id)

    def document(self, run: Any) -> dict[str, Any]:
        """A run as the API's JSON has it."""
        found: dict[str, Any] = self._api.sanitize_for_serialization(run)
        return found

    def address(self, run_id: str) -> str:
        """Where the server's pages show a run."""
        return f"{self.host}/#/runs/details/{run_id}"

    def pod_log(self, run_id: str, pod: str, namespace: str) -> str:
        """A pod's log, from the server's pages; empty where the host serves the API alone."""
        from kfp_server_api import ApiException

        asked = [("podname", pod), ("runid", run_id), ("podnamespace", namespace)]
        try:
            response = self._api.call_api(
                *("/k8s/pod/logs", "GET"),
                query_params=asked,
                auth_settings=["Bearer"],
                response_type="str",
                _return_http_data_only=True,
                _request_timeout=_SECONDS_TO_ANSWER,
            )
        except (ApiException, HTTPError):
            return ""
        return str(response)

    def _many_users(self, ask: Callable[..., Any]) -> bool:
        """Whether the server has many users, once it is ready to say so.

        Kubeflow's pages answer even while the API server behind them does not. That they say in a
        field of their own, which is not in the API's description.
        """
        patience = retries()
        while True:
            healthy = self._asked(ask)
            try:
                ready = json.loads(self._api.last_response.data).get("apiServerReady", True)
            except (ValueError, AttributeError):  # a page
                raise InputError(
                    f"--host {self.host}: answers with something else than Kubeflow Pipelines' "
                    "API; is it the address of a login page, which a token would pass?"
                ) from None
            if ready:
                return bool(healthy.multi_user)
            try:
                patience = patience.increment("GET", self.host)
            except MaxRetryError:
                raise WorkError(
                    f"{self.host}: the API server behind the address is not ready"
                ) from None
            patience.sleep()

    def _first_version(self, pipeline: Any) -> tuple[str, str, str]:
        listed = self._asked(
            self._pipelines.pipeline_service_list_pipeline_versions,
            pipeline.pipeline_id,
            page_size=1,
            sort_by="created_at desc",
        )
        [version] = listed.pipeline_versions
        return str(pipeline.pipeline_id), str(version.pipeline_version_id), version.display_name

    def _new_version(self, name: str, file: Path, version: str | None) -> tuple[str, str, str]:
        from kfp_server_api import ApiException

        found = self._asked(
            self._pipelines.pipeline_service_get_pipeline_by_name, name, **self._place()
        )
        called = version or f"{name} {datetime.now(UTC):%Y-%m-%d %H:%M:%S}"
        try:
            made = self._asked(
                self._uploads.upload_pipeline_version,
                str(file),
                name=called,
                pipelineid=found.pipeline_id,
                passing=409,
            )
        except ApiException:
            raise InputError(
                f"--version {called}: pipeline {name} has one of that name; choose another, or "
                "none, which names it by the time"
            ) from None
        return str(found.pipeline_id), str(made.pipeline_version_id), called

    def _place(self) -> dict[str, Any]:
        return {"namespace": self._namespace} if self._namespace else {}

    def _asked(
        self, method: Callable[..., Any], *arguments: Any, passing: int = 0, **options: Any
    ) -> Any:
        """Call a method of the API; its refusals become errors, but for the status ``passing``."""
        from kfp_server_api import ApiException

        try:
            return method(*arguments, **options, _request_timeout=_SECONDS_TO_ANSWER)
        except ApiException as error:
            if error.status == passing:
                raise
            if error.status in (401, 403):
                raise InputError(
                    f"--host {self.host}: does not let you in ({error.status}); give a token "
                    f"(--token-file, {TOKEN_VARIABLE}) or a cookie ({COOKIE_VARIABLE}) that it "
                    "takes"
                ) from None
            if error.status == 404:
                raise InputError(
                    f"--host {self.host}: is no Kubeflow Pipelines v2 server, or lacks what was "
                    f"asked for: {told(error)}"
                ) from None
            kind = UnansweredError if is_away(error) else WorkError
            raise kind(f"{self.host}: {told(error)}") from None
        except HTTPError as error:
            raise UnansweredError(f"{self.host} does not answer ({type(error).__name__})") from None
