"""A logger of a user's own that keeps what it gets."""

from typing import Any

from lightning.pytorch.loggers import Logger

from litlab.runs.result import Result


class Recording(Logger):
    """Keeps what it gets; `last` is the newest one."""

    name = "recording"
    version = ""
    last: "Recording"

    def __init__(self, *, token: str | None = None) -> None:
        super().__init__()
        self.token = token
        self.params: list[dict[str, Any]] = []
        self.metrics: list[tuple[int | None, dict[str, float]]] = []
        self.pictures: dict[str, tuple[int, ...]] = {}
        self.result: Result | None = None
        Recording.last = self

    def log_hyperparams(self, params: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        self.params.append(params)

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.metrics.append((step, dict(metrics)))

    def log_picture(self, tag: str, picture: Any, step: int, legend: str) -> None:
        self.pictures[tag] = picture.shape

    def log_result(self, result: Result) -> None:
        self.result = result
