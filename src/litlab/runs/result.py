"""result.json: how a run ended."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from litlab.runs.directory import RunDirectory
from litlab.runs.files import write_json
from litlab.runs.state import RunStatus


@dataclass(frozen=True)
class Result:
    """What a run came to.

    Attributes:
        identity: hash of the frozen config without the volatile keys, among them where the data are.
        data: fingerprint of the images and labels; None for a foreign data module.
        best: the validation metrics where the objective was best.
        last: the last validation metrics.
        test: the metrics of the final test.
        weights: SHA-256 of the last weights (`hash_weights`): two runs that agree in it are bit-equal.
        seconds: phase -> seconds, of the last process; `training` and, within it, `saving` of all that took part.
        images_per_second: images over all devices in a second of training; None for a foreign data module.
        error: for a failed run, what was said.
    """

    status: RunStatus
    identity: str
    objective: float | None = None
    data: str | None = None
    best: dict[str, float] = field(default_factory=dict)
    last: dict[str, float] = field(default_factory=dict)
    test: dict[str, float] = field(default_factory=dict)
    epochs: int = 0
    steps: int = 0
    parameters: int | None = None
    weights: str | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    images_per_second: float | None = None
    error: str | None = None
    format: int = 1


def write_result(run: RunDirectory, result: Result) -> None:
    """Write result.json; a metric that is no finite number becomes null."""
    write_json(run.result, finite(asdict(result)))


def read_result(run: RunDirectory) -> dict[str, Any]:
    """
    Raises:
        UserError: if the run has no readable result.json.
    """
    result = run.read_json(run.result)
    assert isinstance(result, dict)
    return result


def finite(value: Any) -> Any:
    """A value for JSON, which has neither NaN nor infinity: they become None, also within dicts."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
