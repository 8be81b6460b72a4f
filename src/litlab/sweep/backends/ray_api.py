"""Client of Ray's Jobs API over HTTP. The cluster has Ray installed; litlab does without."""

import http.client
import json
import os
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from litlab.errors import UserError
from litlab.sweep.backends.queue import QueueError

DEFAULT_ADDRESS = "http://127.0.0.1:8265"  # of the dashboard, if Ray runs on this machine
REQUEST_SECONDS = 15.0
_ADDRESS_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")  # in Ray's order
_ALIVE = ("PENDING", "RUNNING")
_ERROR_LENGTH = 300


class RayError(QueueError):
    """A request to Ray that failed.

    Args:
        message: Reason.
        is_temporary: True if Ray did not answer, or could not at this time.
        status: HTTP status; None if there was no answer.
    """

    def __init__(self, message: str, *, is_temporary: bool = False, status: int | None = None) -> None:
        super().__init__(message)
        self.is_temporary = is_temporary
        self.status = status


@dataclass(frozen=True)
class RayJob:
    """State of a job in Ray.

    Attributes:
        status: PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED.
        message: Explanation; for a job that failed, with the end of its output.
        error_type: Ray's type of error; empty if there is none.
        exit_code: Exit code of the program; None if it did not end by itself.
        run: Run directory relative to its study, from the metadata; empty for the job of another program.
    """

    status: str
    message: str
    error_type: str
    exit_code: int | None
    run: str

    @property
    def is_alive(self) -> bool:
        """True if the job runs, or will."""
        return self.status in _ALIVE


class RayClient:
    """Client of the head of a Ray cluster.

    Args:
        address: Address of its dashboard; None to read it from Ray's environment variables.

    Raises:
        UserError: If it is no HTTP address.
    """

    def __init__(self, address: str | None) -> None:
        self.address = _find_address(address)
        self._opener = urllib.request.build_opener(_NoRedirects)

    def version(self) -> str:
        """Return the version of Ray."""
        return str(self._request("GET", "/api/version")["ray_version"])

    def jobs(self) -> dict[str, RayJob]:
        """Return all jobs that Ray knows, by submission id."""
        return {
            job["submission_id"]: RayJob(
                job["status"],
                job["message"] or "",
                job.get("error_type") or "",
                job.get("driver_exit_code"),
                (job["metadata"] or {}).get("run", ""),
            )
            for job in self._request("GET", "/api/jobs/")
            if job["submission_id"]
        }

    def submit(self, submission_id: str, content: Mapping[str, Any]) -> None:
        """Submit a job under an id that Ray does not know yet."""
        self._request("POST", "/api/jobs/", {"submission_id": submission_id, **content})

    def stop(self, submission_id: str) -> None:
        """Ask a job to stop; one that waits is stopped when it starts. A job that has ended is ignored."""
        self._request("POST", f"/api/jobs/{submission_id}/stop")

    def nodes(self) -> list[dict[str, float]]:
        """Return the resources of each node that is alive."""
        nodes = self._request("GET", "/api/v0/nodes")["data"]["result"]["result"]
        return [node["resources_total"] for node in nodes if node["state"] == "ALIVE"]

    def is_autoscaled(self) -> bool:
        """Tell whether Ray's autoscaler may add nodes: it has types of nodes, others are named after themselves."""
        status = self._request("GET", "/api/cluster_status")["data"].get("clusterStatus") or {}
        types = (status.get("autoscalerReport") or {}).get("nodeTypeMapping") or {}
        return any(name != f"node_{node}" for node, name in types.items())

    def _request(self, method: str, path: str, content: Mapping[str, Any] | None = None) -> Any:
        """Send a request and return the answer.

        Raises:
            RayError: If it failed.
        """
        source, token = _find_token()
        headers = {"Content-Type": "application/json"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        data = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(self.address + path, data, headers, method=method)
        try:
            with self._opener.open(request, timeout=REQUEST_SECONDS) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise self._explain(error, source) from error
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise RayError(f"Ray at {self.address} does not answer: {reason}", is_temporary=True) from error
        except ValueError as error:
            raise RayError(f"{self.address}{path} is no page of Ray's dashboard: its answer is no JSON") from error

    def _explain(self, error: urllib.error.HTTPError, token_source: str) -> RayError:
        """Return the error of an answer that is none."""
        with error:
            text = error.read().decode(errors="replace").strip()
        if error.code == 401:
            reason = (
                "wants a token: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN to the token or RAY_AUTH_TOKEN_PATH to "
                "its file (~/.ray/auth_token otherwise)"
            )
        elif error.code == 403 and token_source:
            reason = f"refuses the token of {token_source}"
        else:
            lines = [line for line in text.splitlines() if line.strip(" .")]
            reason = f"answers {error.code}: {lines[-1][:_ERROR_LENGTH] if lines else error.reason}"
        # The head passes errors of its agent on as 500. An id that exists is that of a request without an answer.
        is_refused = "status code 400" in text and "already exists" not in text
        return RayError(
            f"Ray at {self.address} {reason}", is_temporary=error.code >= 500 and not is_refused, status=error.code
        )


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: the token would be sent along."""

    def redirect_request(self, *arguments: Any, **keywords: Any) -> None:
        return None


def _find_address(setting: str | None) -> str:
    """Return the address of the dashboard: of the setting, or of the first variable that is set."""
    candidates = {"hydra.launcher.address": setting, **{name: os.environ.get(name) for name in _ADDRESS_VARIABLES}}
    name, address = next(((name, value) for name, value in candidates.items() if value), ("", DEFAULT_ADDRESS))
    if not address.startswith(("http://", "https://")) or "@" in address:
        raise UserError(
            f"{name}={address.rpartition('@')[2]}: expected the address of the dashboard of Ray, http://HEAD:8265, "
            "without a name or password"
        )
    return address.rstrip("/")


def _find_token() -> tuple[str, str]:
    """Find the token as Ray does: only with RAY_AUTH_MODE=token.

    Returns:
        The place where it was found, and the token; empty if there is none.

    Raises:
        RayError: If the variable that names its file is wrong.
    """
    if os.environ.get("RAY_AUTH_MODE", "").lower() != "token":
        return "", ""
    if token := os.environ.get("RAY_AUTH_TOKEN", "").strip():
        source = "RAY_AUTH_TOKEN"
    else:
        path = os.environ.get("RAY_AUTH_TOKEN_PATH")
        file = Path(path) if path else Path.home() / ".ray" / "auth_token"
        source = f"RAY_AUTH_TOKEN_PATH={path}" if path else str(file)
        try:
            token = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            if path:
                raise RayError(f"{source}: the token can't be read: {error}") from error
            return "", ""
    if not (token.isascii() and token.isprintable()):
        raise RayError(f"{source}: expected a token in one line of letters and digits")
    return source, token
