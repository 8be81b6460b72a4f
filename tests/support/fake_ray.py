"""The HTTP service of a Ray head on loopback, with the answers that the one of Ray 2.60 gave. No job runs."""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from litlab.runs.files import write_json
from litlab.sweep.backends.base import Job

NODE_DIED = (
    "Job supervisor actor died: The actor died unexpectedly before finishing this task.\n\tclass_name: JobSupervisor\n"
    "\tactor_id: e16db73a7c19a6ff768d242601000000\n\tip: 127.0.0.2\nThe actor died because its node has died. Node Id: "
    "4ae564b1084d3d17aa39dd5f13049cf963691f2164e475c1d07fa109\n\tthe actor's node was terminated unexpectedly: health "
    "check failed due to missing too many heartbeats"
)
GIVEN_UP = (
    "Job supervisor actor failed to start within 900.0 seconds. This timeout can be configured by setting the "
    "environment variable RAY_JOB_START_TIMEOUT_SECONDS."
)
_WAITS = (
    "Job has not started yet. It may be waiting for resources (CPUs, GPUs, memory, custom resources) to become "
    "available. It may be waiting for the runtime environment to be set up."
)
_KNOWN_ID = """Traceback (most recent call last):
  File "job_head.py", line 134, in _raise_error
    raise RuntimeError(f"Request failed with status code {{status}}: {{error_text}}.")
RuntimeError: Request failed with status code 400: Traceback (most recent call last):
  File "job_manager.py", line 553, in submit_job
    raise ValueError(
ValueError: Job with submission_id {} already exists. Please use a different submission_id.
.
"""


@dataclass
class FakeRay:
    """State of the service.

    Attributes:
        address: Address of the service.
        token: Token that it wants; empty for none.
        version: Version of Ray.
        nodes: Resources of each node that is alive.
        node_type: Name of the type of a node under the autoscaler; empty without one.
        loses_answers: True if it takes requests that change something, and then answers nothing.
        error: Status and text of all answers; None for right ones.
        requests: Method and path of each request.
        submissions: Content of each submission.
        jobs: What it says of each job, by submission id.
    """

    address: str = ""
    token: str = ""
    version: str = "2.60.0"
    nodes: list[dict[str, float]] = field(default_factory=lambda: [{"CPU": 2.0, "memory": 18896854016.0}])
    node_type: str = ""
    loses_answers: bool = False
    error: tuple[int, str] | None = None
    requests: list[str] = field(default_factory=list)
    submissions: list[dict[str, Any]] = field(default_factory=list)
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)

    def last_id(self, job: Job) -> str:
        """Return the id of the last submission of a job."""
        return [key for key in self.jobs if key.split("-")[2] == str(job.number)][-1]

    def set_status(self, job: Job, status: str, **values: Any) -> None:
        """Set what the service says of a job."""
        self.jobs[self.last_id(job)] |= {"status": status, "message": f"Job is {status}."} | values

    def end(self, job: Job, code: int, status: str | None) -> None:
        """End a job by itself: its result, and its status."""
        if status is not None:
            write_json(job.run.result, {"status": status, "error": "" if status == "completed" else "stopped"})
        error = "" if code == 0 else "JOB_ENTRYPOINT_COMMAND_ERROR"
        self.set_status(job, "FAILED" if code else "SUCCEEDED", driver_exit_code=code, error_type=error or None)

    def calls(self, start: str) -> list[str]:
        """Return the requests that start so."""
        return [request for request in self.requests if request.startswith(start)]

    def answer(self, method: str, path: str, content: Any) -> tuple[int, Any]:
        """Answer a request; None for a connection that ends without an answer."""
        name = f"{method} {path}"
        self.requests.append(name)
        if self.error is not None:
            return self.error
        if name == "GET /api/version":
            return 200, {"version": "4", "ray_version": self.version, "session_name": "session_2026-11-29_16-03-34"}
        if name == "GET /api/jobs/":
            driver = {"type": "DRIVER", "submission_id": None, "status": "RUNNING", "message": None, "metadata": {}}
            return 200, [driver, *self.jobs.values()]
        if name == "GET /api/v0/nodes":
            nodes = [{"node_id": str(i), "state": "ALIVE", "resources_total": r} for i, r in enumerate(self.nodes)]
            dead = {"node_id": "d", "state": "DEAD", "resources_total": {"CPU": 99.0, "GPU": 99.0}}
            return 200, {"result": True, "data": {"result": {"total": 1, "result": [*nodes, dead]}}}
        if name == "GET /api/cluster_status":
            types = {str(i): self.node_type or f"node_{i}" for i in range(len(self.nodes))}
            report = {"autoscalerReport": {"nodeTypeMapping": types}}
            return 200, {"result": True, "data": {"autoscalingError": None, "clusterStatus": report}}
        if name == "POST /api/jobs/":
            return self._submit(content)
        _, _, _, submission_id, action = path.split("/")
        assert (method, action) == ("POST", "stop")
        if submission_id not in self.jobs:
            return 404, f"Job {submission_id} does not exist"
        job = self.jobs[submission_id]
        if job["status"] == "RUNNING":  # one that waits is stopped when it starts
            job |= {"status": "STOPPED", "message": "Job was intentionally stopped."}
        return 200, {"stopped": job["status"] in ("PENDING", "STOPPED")}

    def _submit(self, content: dict[str, Any]) -> tuple[int, Any]:
        submission_id = content["submission_id"]
        if submission_id in self.jobs:
            return 500, _KNOWN_ID.format(submission_id)
        self.submissions.append(content)
        self.jobs[submission_id] = {
            "type": "SUBMISSION", "job_id": None, "submission_id": submission_id, "driver_info": None,
            "status": "PENDING", "message": _WAITS, "error_type": None, "metadata": content["metadata"],
            "driver_exit_code": None,
        }  # fmt: skip
        return 200, {"job_id": submission_id, "submission_id": submission_id}


def _handler(ray: FakeRay) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._handle("GET")

        def do_POST(self) -> None:
            self._handle("POST")

        def _handle(self, method: str) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            header = self.headers.get("Authorization")
            status: int
            content: Any
            if ray.token and header is None:
                status, content = 401, "Unauthorized: Missing authentication token"
            elif ray.token and header != f"Bearer {ray.token}":
                status, content = 403, "Forbidden: Invalid authentication token"
            else:
                status, content = ray.answer(method, self.path, json.loads(body) if body else None)
            if ray.loses_answers and method == "POST":
                self.close_connection = True
                return
            data = content.encode() if isinstance(content, str) else json.dumps(content).encode()
            self.send_response(status)
            if status in (301, 302):
                self.send_header("Location", content)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    return Handler


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeRay]:
    fake = FakeRay()
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), _handler(fake)) as server:
        fake.address = f"http://127.0.0.1:{server.server_address[1]}"
        monkeypatch.setenv("RAY_API_SERVER_ADDRESS", fake.address)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield fake
        server.shutdown()
        thread.join()
