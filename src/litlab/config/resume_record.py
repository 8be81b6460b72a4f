"""What is different from now on in a run that is continued: written down, in an order that can be cut off anywhere."""

import platform
from typing import Any

from litlab.config.freeze import to_yaml
from litlab.runs.directory import RunDirectory
from litlab.runs.files import sync_directory, write_json, write_text
from litlab.runs.signature import sign

Config = dict[str, Any]


def amend(
    run: RunDirectory, config: Config, changed: dict[str, list[Any]], now: dict[str, Any], *, own: bool, prolongs: bool
) -> list[str]:
    """Record a resumption in provenance.json, and replace config.yaml if it changed; the caller holds the run's lock.

    Wherever it is cut off, the same command once more completes it.

    Args:
        changed: dotted key -> [value before, value after].
        now: the command, the time and the code, as `runs.provenance.of_launch` gives them.
        own: whether the run is the user's own; somebody else's is not signed.
        prolongs: whether the run goes on beyond the end that it had.

    Returns:
        what should be known about the code, a line each.
    """
    known = run.read_json(run.provenance) if run.provenance.exists() else {}
    known = known if isinstance(known, dict) else {}
    entry = {
        "when": now["started"],
        "command": now["command"],
        "changed": changed,
        "host": platform.node(),
        "code": now["code"],
    }
    if prolongs:  # to the worker, a completed run is one with nothing to do
        run.result.unlink(missing_ok=True)
        sync_directory(run.path)
    earlier = known.get("resumed")
    write_json(run.provenance, known | {"resumed": [*(earlier if isinstance(earlier, list) else []), entry]})
    if changed:
        text = to_yaml(config)
        if own:
            sign(run, next_config=text.encode())
        write_text(run.config, text)
        if own:
            sign(run)
    if own and known.get("code", entry["code"]) != entry["code"]:
        return ["the code of the project is not what it was when the run started; it goes on with that of now"]
    return []
