"""Start of a run from weights that were trained before: what of a state dict fits the task is loaded into it.

Names are equal, or equal without the names of wrappers at their start: `model.conv.weight` is `network.conv.weight`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product, takewhile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from litlab.errors import UserError
from litlab.runs.directory import RunDirectory
from litlab.runs.initial_weights import hash_file, is_safetensors
from litlab.runs.terminal import display_path, printable
from litlab.tasks.image_classifier import ImageClassifier
from litlab.training.checkpoint_io import load_safely

_ENTRIES = ("state_dict", "model_state_dict", "model", "net")  # where scripts keep the weights in a checkpoint
_WRAPPERS = ("module", "network", "model", "net", "backbone", "encoder")
_COMPILED = "_orig_mod"  # torch.compile puts it anywhere in a name
_NEW_STATES = ("loss.", "train_metrics.", "epoch_metrics.", "val_metrics.", "test_metrics.")  # of our task: settings
_MAX_NAMES = 4  # of tensors in a message

Shapes = dict[str, str]  # name of a tensor -> its shape in the file, and in the task


@dataclass(frozen=True)
class WarmStart:
    """Report of the weights that a run has started from, by names of the task or, for `unused`, of the file.

    Attributes:
        path: File that they were copied from.
        sha256: Hash of the file.
        loaded: Tensors that were loaded.
        fraction: Fraction of the task's parameters that was loaded.
        other_shape: Tensors that the file has in another shape.
        missing: Tensors of the task that the file lacks.
        unused: Tensors of the file that the task lacks.
    """

    path: str
    sha256: str
    loaded: list[str]
    fraction: float
    other_shape: Shapes
    missing: list[str]
    unused: list[str]

    def describe(self) -> list[str]:
        """Return lines for the user: what was loaded, and what was not."""
        num = len(self.loaded) + len(self.other_shape) + len(self.missing)
        loaded = f"{len(self.loaded)} of {num} tensors, {100 * self.fraction:.1f} % of the parameters"
        kinds = {
            "new, since of another shape": [f"{name} {shapes}" for name, shapes in self.other_shape.items()],
            "new, since not in the file": self.missing,
            "unused": self.unused,
        }
        skipped = [f"{kind}: {_listed(names)}" for kind, names in kinds.items() if names]
        return [
            f"init_from    {display_path(Path(self.path))}: {loaded}",
            *(f"             {printable(line)}" for line in skipped),
        ]


def load_initial_weights(run: RunDirectory, init: dict[str, str], task: nn.Module) -> WarmStart:
    """Load those weights that the run directory has a copy of into the task.

    Args:
        run: Run directory.
        init: `init_from` of its frozen config.
        task: Task, with its own initialization; parameters and buffers without a match keep it, and so do the loss and
            the metrics of `ImageClassifier`, which follow from the settings and the data of this run.

    Raises:
        UserError: If the copy is missing or damaged, holds more than plain data, or NaN, or if nothing of it fits, or
            the last layer alone.
    """
    path = display_path(Path(init["path"]))
    state = _read(run.initial_weights, init, str(path))
    new = _NEW_STATES if isinstance(task, ImageClassifier) else ()
    targets = {
        name: value
        for name, value in task.state_dict().items()
        if isinstance(value, Tensor) and not name.startswith(new)
    }
    sources = _match(targets, state, str(path))
    fits = {name: state[source] for name, source in sources.items() if _is_fitting(state[source], targets[name])}
    parameters = {name: parameter for name, parameter in task.named_parameters() if name in targets}
    _refuse_unrelated(parameters, fits, sources, state, str(path))
    _refuse_nan(fits, parameters, str(path))
    task.load_state_dict(fits, strict=False)
    sizes = {name: parameter.numel() for name, parameter in parameters.items() if _has_shape(parameter)}
    used = set(sources.values())
    return WarmStart(
        path=init["path"],
        sha256=init["sha256"],
        loaded=list(fits),
        fraction=sum(size for name, size in sizes.items() if name in fits) / sum(sizes.values()),
        other_shape={
            name: f"({_shape(state[source])}, here {_shape(targets[name])})"
            for name, source in sources.items()
            if name not in fits
        },
        missing=[name for name in targets if name not in sources],
        unused=[name for name in state if name not in used],
    )


def _read(file: Path, init: dict[str, str], path: str) -> dict[str, Tensor]:
    """Read the state dict in a file of any of the formats."""
    if not file.is_file() or hash_file(file) != init["sha256"]:
        problem = "is damaged: its hash is not the one in config.yaml" if file.exists() else "is missing"
        raise UserError(f"{file} {problem}; it is a copy of {path}")
    with file.open("rb") as opened:
        by_safetensors = is_safetensors(opened)
    content = _read_safetensors(file, path) if by_safetensors else _read_checkpoint(file, path)
    entries = [content[key] for key in _ENTRIES if key in content] if isinstance(content, Mapping) else []
    for candidate in (*entries, content):
        if isinstance(candidate, Mapping):
            tensors = {str(name): value for name, value in candidate.items() if isinstance(value, Tensor)}
            if tensors:
                return tensors
    raise UserError(
        f"init_from={path}: holds no weights: expected a dict of tensors, as state_dict() gives it, or one that has it "
        f"under {', '.join(_ENTRIES)}"
    )


def _read_checkpoint(file: Path, path: str) -> Any:
    try:
        return load_safely(file, f"init_from={path}", map_location="cpu")
    except UserError as error:
        raise UserError(
            f"{error}; if you trust the file, save its weights alone and start from those: "
            "torch.save(torch.load(FILE, weights_only=False)['state_dict'], 'weights.pt')"
        ) from error


def _read_safetensors(file: Path, path: str) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state: dict[str, Tensor] = load_file(file)
    except SafetensorError as error:
        raise UserError(f"init_from={path}: can't be read by safetensors: {printable(str(error))}") from error
    return state


def _match(targets: Mapping[str, Tensor], state: Mapping[str, Tensor], path: str) -> dict[str, str]:
    """Map names of the task to those of the same tensors in a state dict, each of which is used once.

    First one prefix of the file is exchanged for one of the task, such as `module.` for `network.`: those by which most
    tensors fit and, of several such, the shortest ones. What is left is compared without any wrappers.

    Raises:
        UserError: If several names of the state dict mean the same tensor, or one of them means several.
    """
    ours, theirs = _plain_names(targets, targets, path), _plain_names(state, targets, path)
    ranked = []
    for prefix, source_prefix in product(_prefixes(ours), _prefixes(theirs)):
        renamed = {name: source_prefix + name[len(prefix) :] for name in ours if name.startswith(prefix)}
        found = {name: source for name, source in renamed.items() if source in theirs}
        num_fitting = sum(_is_fitting(state[theirs[source]], targets[ours[name]]) for name, source in found.items())
        rank = (num_fitting, len(found), -(prefix + source_prefix).count("."))
        ranked.append((rank, prefix, source_prefix, found))
    ranked.sort(key=lambda candidate: candidate[0], reverse=True)
    (best_rank, best_prefix, best_source_prefix, matches), *others = ranked
    matched = {source: name for name, source in matches.items()}
    for rank, prefix, _, found in others:
        for name, source in found.items():
            if rank == best_rank and source in matched and name not in matches:
                raise _ambiguous(path, [theirs[source]], [ours[matched[source]], ours[name]])
            is_rival = rank == best_rank or best_source_prefix != best_prefix == prefix
            if is_rival and name in matches and source not in matched:
                raise _ambiguous(path, [theirs[matches[name]], theirs[source]], [ours[name]])

    rest: dict[str, tuple[list[str], list[str]]] = {}
    for name in (name for name in ours if name not in matches):
        rest.setdefault(_bare(name), ([], []))[0].append(ours[name])
    for source in (source for source in theirs if source not in matched):
        rest.setdefault(_bare(source), ([], []))[1].append(theirs[source])
    pairs = {ours[name]: theirs[source] for name, source in matches.items()}
    for names, sources in rest.values():
        if len(names) == len(sources) == 1:
            pairs[names[0]] = sources[0]
        elif names and sources:
            raise _ambiguous(path, sources, names)
    return {name: pairs[name] for name in targets if name in pairs}


def _plain_names(names: Iterable[str], targets: Mapping[str, Tensor], path: str) -> dict[str, str]:
    """Map names without that of torch.compile to names; of two, the one that the task has itself counts."""
    plain: dict[str, str] = {}
    for name in names:
        key = ".".join(part for part in name.split(".") if part != _COMPILED)
        other = plain.setdefault(key, name)
        if other != name and name in targets:
            plain[key] = name
        elif other not in (name, *targets):
            raise _ambiguous(path, [other, name], [key])
    return plain


def _prefixes(names: Iterable[str]) -> list[str]:
    """Return what of wrappers the names start with, of any length, also none."""
    prefixes = {""}
    for name in names:
        parts = name.split(".")
        wrappers = list(takewhile(_WRAPPERS.__contains__, parts[:-1]))
        prefixes.update("".join(f"{part}." for part in wrappers[:length]) for length in range(1, len(wrappers) + 1))
    return sorted(prefixes)


def _ambiguous(path: str, sources: Sequence[str], names: Sequence[str]) -> UserError:
    several = " and ".join(sources) + " could both be " + names[0]
    one = f"{sources[0]} could be {' and '.join(names)} alike"
    hint = "save the state dict of the one to use alone" if len(sources) > 1 else "save it under one of these names"
    return UserError(f"init_from={path}: {printable(several if len(sources) > 1 else one)}; {hint}")


def _bare(name: str) -> str:
    """Return a name without the wrappers at its start."""
    parts = name.split(".")
    while len(parts) > 1 and parts[0] in _WRAPPERS:
        del parts[0]
    return ".".join(parts)


def _is_fitting(value: Tensor, target: Tensor) -> bool:
    is_same_kind = value.is_floating_point() == target.is_floating_point()
    return is_same_kind and value.layout == torch.strided and (not _has_shape(target) or value.shape == target.shape)


def _has_shape(value: Tensor) -> bool:
    """Return False for a parameter of a lazy module, which takes its shape from what is loaded."""
    return not isinstance(value, UninitializedParameter)


def _shape(value: Tensor) -> str:
    kind = "" if value.is_floating_point() else f" {value.dtype}".replace("torch.", "")
    kind += "" if value.layout == torch.strided else f" {value.layout}".replace("torch.", "")
    return ("x".join(map(str, value.shape)) or "scalar") + kind if _has_shape(value) else "any"


def _refuse_unrelated(
    parameters: Mapping[str, nn.Parameter],
    fits: Mapping[str, Tensor],
    sources: Mapping[str, str],
    state: Mapping[str, Tensor],
    path: str,
) -> None:
    """Refuse weights of another network: none of its parameters fits, or those of the last layer alone."""
    loaded = [name for name in parameters if name in fits]
    last_layer = next(reversed(list(parameters)), "").rpartition(".")[0]
    if any(name.rpartition(".")[0] != last_layer for name in loaded) or (loaded and len(parameters) == len(loaded)):
        return
    if loaded:
        raise UserError(
            f"init_from={path}: only the last layer ({', '.join(loaded)}) fits, so these are the weights of another "
            "network; choose the model that they were trained with"
        )
    others = [
        f"{name} ({_shape(state[s])}, here {_shape(parameters[name])})"
        for name, s in sources.items()
        if name in parameters
    ]
    reason = (
        f"the shapes differ: {_listed(others)}"
        if others
        else f"it has {_listed(list(state))}, and the network {_listed(list(parameters))}"
    )
    raise UserError(
        f"init_from={path}: none of its {len(state)} tensors fits the network; {printable(reason)}; choose the model "
        "that they were trained with"
    )


def _refuse_nan(fits: Mapping[str, Tensor], parameters: Mapping[str, nn.Parameter], path: str) -> None:
    """Refuse NaN, and infinity in parameters; a mask in a buffer may be infinite."""
    for name, value in fits.items():
        broken = ~torch.isfinite(value) if name in parameters else torch.isnan(value)
        if broken.any():
            raise UserError(
                f"init_from={path}: {name} holds NaN or infinity, so no training can start from it; choose a "
                "checkpoint from before the run diverged"
            )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return ", ".join(names[:_MAX_NAMES]) + more
