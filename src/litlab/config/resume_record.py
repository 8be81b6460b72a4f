"""Crash-safe record of the config changes of a resumed run."""

import platform
from collections.abc import Collection
from typing import Any

from litlab.config.config_file import to_yaml
from litlab.config.machine_facts import without_decisions
from litlab.config.tree import Config
from litlab.runs.directory import RunDirectory
from litlab.runs.files import sync_directory, write_json, write_text
from litlab.runs.signature import sign


def write_resume_record(
    run: RunDirectory,
    config: Config,
    changed: dict[str, list[Any]],
    launch: dict[str, Any],
    *,
    own: bool,
    extends_training: bool,
    overridden: Collection[str] = (),
) -> list[str]:
    """Record a resumption in provenance.json and replace config.yaml if it changed.

    The caller holds the run's lock. If this is interrupted anywhere, the same command completes it.

    Args:
        run: Run directory.
        config: Config to resume with.
        changed: Dotted key -> [value before, value after].
        launch: Command, time and code, as `runs.provenance.describe_launch` returns them.
        own: Whether the run is the user's own; an untrusted run is not signed.
        extends_training: Whether the run continues beyond the end that it had.
        overridden: Keys that the command sets, also those that it does not change.

    Returns:
        Notes on the code of the project, a line each.
    """
    provenance = without_decisions(run.read_mapping(run.provenance), [*changed, *overridden])
    entry = {"when": launch["started"], "command": launch["command"], "changed": changed}
    entry |= {"host": platform.node(), "code": launch["code"]}
    if extends_training:  # a worker does nothing for a run that is completed
        run.result.unlink(missing_ok=True)
        sync_directory(run.path)
    earlier = provenance.get("resumed")
    write_json(run.provenance, provenance | {"resumed": [*(earlier if isinstance(earlier, list) else []), entry]})
    if changed:
        text = to_yaml(config)
        if own:
            sign(run, next_config=text.encode())
        write_text(run.config, text)
        if own:
            sign(run)
    if own and provenance.get("code", entry["code"]) != entry["code"]:
        return ["the project's code has changed since the run started; the run continues with the present code"]
    return []
