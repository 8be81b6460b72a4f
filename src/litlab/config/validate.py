"""Validation of a resolved config against the schema; all problems are reported at once."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from litlab.config.paths import packaged_conf, project_conf
from litlab.config.schema import (
    BASE_SECTIONS,
    CIFAR10,
    CNN,
    LAUNCHERS,
    SCHEDULE_KEYS,
    SECTIONS,
    SGD,
    TORCHVISION_OF_ANY_SIZE,
    TORCHVISION_VARIANTS,
    TORCHVISION_WITH_VALIDATION,
    TRAINER_DECIDED,
    VALIDATION_METRICS,
    DataFacts,
    ImageClassifier,
    OneCycle,
    Plateau,
    Root,
    Schedule,
    Section,
    Trainer,
    validation_metrics,
)
from litlab.config.tree import (
    MAPPING_GROUPS,
    Config,
    check_plain,
    did_you_mean,
    format_value,
    join,
    nodes,
    unknown_key_message,
    walk,
)
from litlab.errors import UserError
from litlab.runs.metrics import Mode, is_validation

MISSING = "???"
# Group -> default of conf/config.yaml, and its section: its keys stay where a command line names another class.
_DEFAULTS: dict[str, tuple[str, type[Section]]] = {
    "data": ("cifar10", CIFAR10),
    "model": ("cnn", CNN),
    "task": ("image_classifier", ImageClassifier),
    "optimizer": ("sgd", SGD),
    "schedule": ("one_cycle", OneCycle),
}
_DEVICE_ARGUMENTS = ("accelerator", "devices", "num_nodes")  # of the Trainer: the number of processes depends on them
_MAX_LISTED_FOLDS = 10
_MAX_LISTED_KEYS = 4
_OUR_TARGETS = {target: target for target in SECTIONS}
_TYPE_NAMES = {"int", "float", "str", "bool", "none"}


def validate(config: Config) -> None:
    """Check litlab's own keys, and the arguments of the classes in `schema.SECTIONS`, in a resolved config.

    Raises:
        UserError: With a line for each problem: the key, the value, what was expected, the nearest match.
    """
    check_plain(config)
    if not isinstance(config, dict):
        raise UserError(f"expected a config, found a {type(config).__name__}")
    problems = [f"{key}: a value is missing; set {key}=..." for key, value in walk(config) if value == MISSING]
    problems += _check("", config, Root)
    for path, node in nodes(config):
        problems += _check_node(path, node)
    if not problems:
        problems = _combination_problems(config)
    if problems:
        raise UserError("\n".join(dict.fromkeys(problems)))


def check_settings(path: str, settings: Config, section: type[Section]) -> None:
    """Check settings of Hydra at a dotted key, not of a run, such as those of a launcher.

    Raises:
        UserError: With a line for each problem.
    """
    if problems := _check(path, settings, section):
        raise UserError("\n".join(problems))


def check_launcher(settings: Config) -> None:
    """Check the settings of one of litlab's launchers.

    Raises:
        UserError: With a line for each problem.
    """
    backend = settings.get("backend")
    if backend not in LAUNCHERS:
        raise UserError(
            f"hydra.launcher.backend={format_value(backend)}: "
            f"choose a launcher by hydra/launcher={', '.join(LAUNCHERS)}"
        )
    check_settings("hydra.launcher", settings, LAUNCHERS[backend])


def _check_node(path: str, node: Config) -> list[str]:
    target = node.get("_target_")
    if not isinstance(target, str):
        return [f"{path}._target_: names the class to build, as in package.module.Class; found {target!r}"]
    section = SECTIONS.get(target)
    if section is None and target.startswith("litlab."):
        return [f"{path}._target_={target}: litlab has no such class{did_you_mean(target, SECTIONS)}"]
    arguments = {key: value for key, value in node.items() if key != "_target_"}
    if section is None and path == "trainer":  # litlab itself reads these arguments of a foreign Trainer
        present = {name: arguments[name] for name in _DEVICE_ARGUMENTS if name in arguments}
        keys = tuple(f"trainer.{name}" for name in _DEVICE_ARGUMENTS)
        decided = [problem for name in arguments if (problem := trainer_problem(f"trainer.{name}"))]
        return [line for line in _check("trainer", present, Trainer) if line.startswith(keys)] + decided
    if section is None and path == "schedule":
        read_by_task = {name: arguments[name] for name in SCHEDULE_KEYS if name in arguments}
        return _check(path, read_by_task, Schedule) if read_by_task else []
    if section is None:
        return []
    facts = {name: arguments.pop(name) for name in section.facts if name in arguments}
    unknown = [name for name in arguments if name not in section.model_fields]
    if section is Plateau and unknown == ["interval"]:
        return [f"{path}.interval: {target} is stepped at each validation; leave out {path}.interval"]
    if problem := default_keys_problem(path, target, unknown):
        return [problem]
    return _check(path, facts, DataFacts) + _check(path, arguments, section)


def subclass_problems(config: Config, bases: Mapping[str, str]) -> list[str]:
    """Return the problems of the keys that subclasses of litlab's classes inherit, in a config without other problems.

    Args:
        config: Config, or some of its groups.
        bases: Target of a subclass -> the class of litlab's, in `schema.BASE_SECTIONS`, that it inherits from.
    """
    problems = []
    for path, node in nodes(config):
        if (base := bases.get(node["_target_"])) is not None:
            section = BASE_SECTIONS[base]
            inherited = {name: value for name, value in node.items() if name in section.model_fields}
            facts = {name: node[name] for name in section.facts if name in node}
            problems += _check(path, facts, DataFacts) + _check(path, inherited, section, is_complete=False)
            inner = nodes({path: node | {"_target_": base}}) if path == "task" else ()
            problems += [line for key, value in inner if key != path for line in _check_node(key, value)]
    if problems or not bases or "trainer" not in config:
        return problems
    return _combination_problems(config, {**_OUR_TARGETS, **bases})


def trainer_problem(key: str) -> str | None:
    """Return what to do instead of setting an argument of the Trainer that litlab decides; None for any other key."""
    parent, _, name = key.rpartition(".")
    return f"{key}: can't be set: {TRAINER_DECIDED[name]}" if parent == "trainer" and name in TRAINER_DECIDED else None


def _check(path: str, values: Config, section: type[Section], *, is_complete: bool = True) -> list[str]:
    """Return the problems of values; unless they are to be complete, of those that are there."""
    try:
        section.model_validate(values)
    except ValidationError as error:
        expected: dict[str, list[str]] = {}  # several per key, where a value may be of several types
        for item in error.errors(include_url=False):
            if item["type"] == "missing" and len(item["loc"]) == 1 and not is_complete:
                continue
            key, expectation = _explain(path, dict(item), section)
            expected.setdefault(key, []).append(expectation)
        return [key + ", or ".join(texts).replace(", or expected", ", or") for key, texts in expected.items() if key]
    return []


def _explain(path: str, item: dict[str, Any], section: type[Section]) -> tuple[str, str]:
    """Return a problem as two texts: the key with its value, and what was expected."""
    key = path
    for part in item["loc"]:
        key = join(key, part) if _is_key(part) else key
    if item["input"] == MISSING:
        return "", ""  # reported already
    if item["type"] == "extra_forbidden":
        if problem := trainer_problem(key):
            return problem, ""
        names = [join(path, name) for name in section.model_fields]
        names += [join(key.rpartition(".")[0], name) for name in _nested_names(section, item["loc"][:-1])]
        return unknown_key_message(key, names), ""
    if item["type"] == "missing":
        return f"{key}: a value is missing; set {key}=...", ""
    if item["type"] == "string_type" and isinstance(item["input"], bool | int | float):
        value = format_value(item["input"])
        return f"{key}={value}: ", f"expected a text; quote it: \"{key}='{value}'\""
    if item["type"] in ("dict_type", "model_type") and (expectation := _expected_mapping(key, item["input"])):
        return f"{key}={format_value(item['input'])}: ", f"expected {expectation}"
    message = item["msg"].removeprefix("Value error, ").replace("Input should be", "expected")
    return f"{key}={format_value(item['input'])}: ", message[0].lower() + message[1:]


def _nested_names(section: type[Section], parts: Sequence[int | str]) -> list[str]:
    """Return the names of the keys of the section at a nested key, such as `low_light` of `data`; none of others."""
    for part in parts:
        annotation = section.model_fields[part].annotation if part in section.model_fields else None
        kinds = (annotation, *get_args(annotation))
        nested = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Section)), None)
        if nested is None:
            return []
        section = nested
    return list(section.model_fields) if parts else []


def default_keys_problem(path: str, target: str, unknown: Iterable[str]) -> str | None:
    """Return a problem if a class got arguments that it does not take from the default config of its group.

    Args:
        path: Key of the node.
        target: Its class.
        unknown: Names of the arguments that the class does not take.
    """
    default, section = _DEFAULTS.get(path, ("", Section))
    names = [name for name in unknown if name in section.model_fields]
    if not names:
        return None
    listed = ", ".join(names[:_MAX_LISTED_KEYS]) + ", ..." * (len(names) > _MAX_LISTED_KEYS)
    return (
        f"{path}.{names[0]}: {target} takes no {listed}; if this comes from the default {path}={default}, replace that "
        f"by ~{path} '+{path}={{_target_: {target}}}', or write conf/{path}/NAME.yaml"
    )


def _expected_mapping(key: str, value: Any) -> str | None:
    """Return the mapping that is expected instead of a text; None if the key takes no node of its own."""
    if key == "objective":
        return "{metric: val/accuracy, mode: max}"
    group, _, rest = key.partition(".")
    if not isinstance(value, str) or not (
        group in MAPPING_GROUPS or rest.startswith(("loss", "metrics.", "transforms."))
    ):
        return None
    if value.isidentifier() and any((conf / group / f"{value}.yaml").is_file() for conf in _conf_folders()):
        return f"a node; to choose the config of that name, write {group}={value}"
    name = value if "." in value else f"my_module.{value}"
    return f"a node that names a class, as in '{key}={{_target_: {name}}}'"


def find_mode_problem(objective: Mapping[str, str], mode: Mode | None) -> str | None:
    """Return the problem of an objective whose mode contradicts that of its metric; None if there is none."""
    if mode is None or objective["mode"] == mode:
        return None
    better = "lower" if mode == "min" else "higher"
    return f"objective.mode={objective['mode']}: {better} values of {objective['metric']} are better; set it to {mode}"


def _conf_folders() -> list[Path]:
    return [folder for folder in (project_conf(Path.cwd()), packaged_conf()) if folder is not None]


def _is_key(part: object) -> bool:
    """Return whether a part of a location is a key; pydantic adds union members, which are types or hold brackets."""
    return isinstance(part, int) or (isinstance(part, str) and part.isidentifier() and part not in _TYPE_NAMES)


def _combination_problems(config: Config, bases: Mapping[str, str] = _OUR_TARGETS) -> list[str]:
    """Return the problems of values that are valid by themselves, but not together.

    Args:
        config: Config.
        bases: Target of a data module or task whose keys mean what they mean to litlab -> the class of litlab's that it
            is or inherits from.
    """
    problems = []
    data = config.get("data") or {"_target_": None}
    trainer, objective = config["trainer"], config.get("objective")
    metrics = validation_metrics(config["task"])
    if objective and config["task"]["_target_"] in SECTIONS and objective["metric"] not in metrics:
        hint = did_you_mean(objective["metric"], metrics)
        names = ", ".join(metrics)
        problems.append(f"objective.metric={objective['metric']}: is not measured in validation{hint}; known: {names}")
    if objective and config["task"]["_target_"] in SECTIONS and objective["metric"] in VALIDATION_METRICS:
        problems += filter(None, [find_mode_problem(objective, VALIDATION_METRICS[objective["metric"]])])
    task = config["task"]
    if task["_target_"] in bases and task.get("loss") and task.get("label_smoothing"):
        problems.append(
            f"task.label_smoothing={task['label_smoothing']}: is for cross entropy, not for task.loss="
            f"{task['loss']['_target_']}; set it to 0, and an argument of the loss instead if it has one"
        )
    if data["_target_"] is None and config["task"]["_target_"] in SECTIONS:  # a subclass may have loaders
        problems.append("data=null: is for a task with loaders of its own; choose a data module by data=...")
    if data.get("progressive_sizes") and data["_target_"] in bases and trainer.get("max_epochs") in (None, -1):
        problems.append(
            "data.progressive_sizes: each has an equal share of the epochs, so it must be known how many there are; "
            "set trainer.max_epochs=N"
        )
    if data["_target_"] in bases and trainer["_target_"] in SECTIONS:
        problems += [
            f"trainer.{name}={format_value(trainer[name])}: is for a data module of your own; litlab's loaders share "
            f"each batch among the devices and give each epoch its own order; leave out trainer.{name}"
            for name in ("use_distributed_sampler", "reload_dataloaders_every_n_epochs")
            if name in trainer and trainer[name] != Trainer.model_fields[name].default
        ]
    problems += [*_fold_problems(data), *_sampling_problems(data)] if data["_target_"] in bases else []
    if bases.get(data["_target_"]) == "litlab.data.torchvision.Torchvision":
        problems += _torchvision_problems(data)
    problems += _schedule_problems(config, bases) + _early_stopping_problems(config, bases)
    devices = trainer.get("devices")
    # A foreign data module may count per device.
    batch_size = data.get("batch_size") if data["_target_"] in bases else None
    ranks = (len(devices) if isinstance(devices, list) else devices) if devices not in ("auto", -1) else None
    if isinstance(ranks, int) and isinstance(batch_size, int):
        world = ranks * int(trainer.get("num_nodes", 1))
        if batch_size % world:
            near = sorted({max(world, batch_size // world * world), -(-batch_size // world) * world})
            problems.append(
                f"data.batch_size={batch_size}: it counts the images of all devices together, so {world} devices must "
                f"divide it; use {' or '.join(map(str, near))}"
            )
    return problems


def _fold_problems(data: Config) -> list[str]:
    """Return the problems of the settings of k-fold, `data.folds` and `data.fold`."""
    folds, fold = data.get("folds"), data.get("fold")
    if folds is None:
        return [] if fold is None else [f"data.fold={fold}: of how many folds; add data.folds=5"]
    if fold is None:
        is_short = folds <= _MAX_LISTED_FOLDS
        every = f"data.fold={','.join(map(str, range(folds)))}" if is_short else f"'data.fold=range({folds})'"
        return [f"data.folds={folds}: add the fold to validate on, data.fold=0, or for all of them -m {every}"]
    if fold >= folds:
        return [f"data.fold={fold}: there are {folds} folds (data.folds), counted from 0; expected 0 to {folds - 1}"]
    return []


def _sampling_problems(data: Config) -> list[str]:
    """Return the problem of images that are drawn by their loss, `data.hard_fraction`, and mixed with others."""
    fraction, mixing = data.get("hard_fraction", 1), [name for name in ("mixup", "cutmix") if data.get(name)]
    if fraction == 1 or not mixing:
        return []
    return [
        f"data.hard_fraction={fraction}: images are drawn by their own loss, which data.{mixing[0]}={data[mixing[0]]} "
        f"mixes with that of other images; set data.hard_fraction=1 or {' '.join(f'data.{name}=0' for name in mixing)}"
    ]


def _torchvision_problems(data: Config) -> list[str]:
    """Return the problems of values that depend on the data set of torchvision."""
    name, variant, problems = data["name"], data["variant"], []
    if name in TORCHVISION_OF_ANY_SIZE and data["image_size"] is None:
        problems.append(
            f"data.image_size: the images of {name} have different sizes; set one, as in data.image_size=64"
        )
    variants = TORCHVISION_VARIANTS.get(name)
    values = ", ".join(map(str, variants.values)) if variants else ""
    if variant is not None and (not variants or variant not in variants.values):
        expected = f"expected {values}" if variants else f"{name} has no variants; leave it out"
        problems.append(f"data.variant={variant}: {expected}")
    if variant is None and name == "EMNIST":
        problems.append(f"data.variant: EMNIST has several; set one of {values}, as in data.variant=balanced")
    return problems


def find_missing_validation(config: Config, bases: Mapping[str, str] = _OUR_TARGETS) -> str | None:
    """Return the setting by which a run has no validation; None if it may have one."""
    if config["trainer"].get("limit_val_batches") == 0:
        return "trainer.limit_val_batches=0"
    data = config.get("data") or {"_target_": None}
    splits = [data.get("folders"), data.get("splits")]  # of a subclass of litlab's data modules, anything
    has_split = data.get("folds") or any(isinstance(names, dict) and names.get("val") for names in splits)
    has_split = has_split or data.get("name") in TORCHVISION_WITH_VALIDATION
    return "data.val_size=0" if data["_target_"] in bases and data.get("val_size") == 0 and not has_split else None


def _schedule_problems(config: Config, bases: Mapping[str, str]) -> list[str]:
    schedule, objective = config.get("schedule") or {}, config.get("objective")
    if schedule.get("_target_") != "torch.optim.lr_scheduler.ReduceLROnPlateau":
        return []
    if objective is None:
        return ["schedule: ReduceLROnPlateau follows the objective, but objective=null; choose another schedule"]
    mode = objective["mode"]
    if schedule.get("mode", mode) != mode:
        follows = f"ReduceLROnPlateau follows {objective['metric']}, whose mode is {mode}; leave out schedule.mode"
        return [f"schedule.mode={schedule['mode']}: {follows}"]
    if setting := find_missing_validation(config, bases):
        follows = "ReduceLROnPlateau follows the objective, but there is no validation"
        return [f"schedule: {follows}, since {setting}; change it, or choose another schedule"]
    return []


def _early_stopping_problems(config: Config, bases: Mapping[str, str]) -> list[str]:
    problems, task = [], config["task"]
    for name, node in (config.get("callbacks") or {}).items():
        if not node or node["_target_"] != "lightning.pytorch.callbacks.EarlyStopping":
            continue
        key = f"callbacks.{name}.monitor={node['monitor']}"
        metrics = validation_metrics(task)
        if task["_target_"] in SECTIONS and node["monitor"] not in metrics:
            hint = did_you_mean(node["monitor"], metrics)
            problems.append(f"{key}: is not measured in validation{hint}; known: {', '.join(metrics)}")
        if is_validation(node["monitor"]) and (setting := find_missing_validation(config, bases)):
            problems.append(f"{key}: there is no validation, since {setting}; change it, or leave out the callback")
    return problems
