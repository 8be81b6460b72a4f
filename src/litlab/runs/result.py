"""The result of a run, in result.json."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from litlab.errors import UserError
from litlab.runs.directory import RunDirectory
from litlab.runs.files import write_json
from litlab.runs.state import RunStatus


@dataclass(frozen=True)
class Result:
    """Result of a run that has ended.

    Attributes:
        status: Final status.
        identity: Hash of the frozen config without the volatile keys, such as the location of the data.
        objective: Best value of the objective; None without one.
        data: Fingerprint of images and labels; None for a foreign data module.
        best: Validation metrics where the objective was best.
        last: Last validation metrics.
        test: Metrics of the final test.
        epochs: Number of completed epochs.
        steps: Number of optimizer steps.
        parameters: Number of parameters of the network.
        trainable_parameters: Number of those that were not frozen at the end.
        weights: SHA-256 of the last weights (`hash_weights`): runs with the same hash are bit-equal.
        seconds: Duration of each phase of the last process, by name; `training` and `saving`, a part of it, of all
            processes.
        device: Name of the GPU, or of the processor, of the last process.
        precision: Precision of the training, as the Trainer names it; `trainer.precision=auto` leaves it to the device.
        images_per_second: Images of all devices in a second of training; None for a foreign data module.
        error: Message of a run that did not complete.
        stop_reason: Reason for which a callback or the module ended the training, also if it did so in the last epoch
            that the limits allow; None if none did.
        format: Version of this file's format.
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
    trainable_parameters: int | None = None
    weights: str | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    device: str | None = None
    precision: str | None = None
    images_per_second: float | None = None
    error: str | None = None
    stop_reason: str | None = None
    format: int = 1


def write_result(run: RunDirectory, result: Result) -> None:
    """Write result.json; a metric that is no finite number becomes null."""
    write_json(run.result, nonfinite_to_none(asdict(result)))


def read_result(run: RunDirectory) -> dict[str, Any]:
    """Read result.json.

    Raises:
        UserError: If it is missing or damaged.
    """
    result = run.read_json(run.result)
    if not isinstance(result, dict):
        raise UserError(f"{run.result} is damaged: expected a JSON object")
    return result


def is_completed(run: RunDirectory) -> bool:
    """Return True if result.json says that the run is completed; hold the lock of the run to rely on False."""
    try:
        return bool(read_result(run).get("status") == RunStatus.COMPLETED)
    except UserError:
        return False


def nonfinite_to_none(value: Any) -> Any:
    """Replace NaN and infinity, which JSON does not have, by None, also within dicts."""
    if isinstance(value, dict):
        return {key: nonfinite_to_none(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
