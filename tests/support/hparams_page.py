"""Content of TensorBoard's HParams page for a folder, from its own backend."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups

STATUSES = ("STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING")


@dataclass(frozen=True)
class Shown:
    """A row of the page."""

    status: str
    settings: dict[str, Any]
    metrics: dict[str, float]


def sessions(folder: Path, statuses: Collection[str] = STATUSES) -> dict[str, Shown]:
    """Return name of the run -> its row, for some statuses."""
    return sessions_of(EventMultiplexer().AddRunsFromDirectory(str(folder)).Reload(), statuses)


def sessions_of(multiplexer: EventMultiplexer, statuses: Collection[str] = STATUSES) -> dict[str, Shown]:
    """Return the rows of the runs that a TensorBoard has read so far."""
    context = backend_context.Context(TBContext(data_provider=MultiplexerDataProvider(multiplexer, "")))
    request = api_pb2.ListSessionGroupsRequest(allowed_statuses=statuses, start_index=0, slice_size=1000)
    answer = list_session_groups.Handler(RequestContext(), context, "", request).run()
    rows = {}
    for group in answer.session_groups:
        (session,) = group.sessions
        values = {value.name.tag: value.value for value in session.metric_values}
        rows[session.name] = Shown(api_pb2.Status.Name(session.status), MessageToDict(group)["hparams"], values)
    return rows
