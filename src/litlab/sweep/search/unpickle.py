"""What CMA-ES has learned, read as data: Optuna keeps it in the database as a pickle, which can be a program."""

import io
import pickle
from typing import Any, ClassVar, TypeAlias

import numpy as np
from cmaes import CMA, CMAwM, SepCMA  # type: ignore[import-untyped]
from optuna.samplers import CmaEsSampler
from optuna.trial import FrozenTrial

from litlab.errors import UserError

Optimizer: TypeAlias = CMA | SepCMA | CMAwM


class RestoringSampler(CmaEsSampler):
    """Optuna's sampler; but its pickles can't call anything."""

    def _restore_optimizer(self, completed_trials: list[FrozenTrial]) -> Optimizer | None:
        """What the newest trial that has an optimizer says; None if there is none.

        Raises:
            UserError: if that is no optimizer, whatever else it may be.
        """
        for trial in reversed(completed_trials):
            parts = {key: text for key, text in trial.system_attrs.items() if key.startswith(self._attr_key_optimizer)}
            if parts:
                try:
                    return _optimizer(bytes.fromhex(self._concat_optimizer_attrs(parts)))
                except Exception as error:  # anything may be wrong with it
                    raise UserError(
                        f"the database of the search: what trial {trial.number} keeps of CMA-ES was not written by "
                        f"litlab ({error}); bring back the database as it was, or choose another study.name"
                    ) from None
        return None


def _optimizer(content: bytes) -> Optimizer:
    """
    Raises:
        Exception: of any kind, if the pickle does not hold an optimizer.
    """
    found = _built(_Unpickler(io.BytesIO(content)).load())
    if not isinstance(found, Optimizer):
        raise ValueError("it is no optimizer")
    return found


class _Numbers:
    """Stands for a dtype."""

    def __init__(self, code: str, align: bool, copy: bool) -> None:
        if code not in ("f8", "i8", "b1"):
            raise ValueError(f"it has numbers of the kind {code!r}")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """Stands for an array."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, numbers, by_columns, content = state
        self.array = np.frombuffer(content, numbers.dtype).reshape(shape, order="F" if by_columns else "C").copy()


class _Object:
    """Stands for an optimizer."""

    of: ClassVar[Any]

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.state = state


class _OfCMA(_Object):
    of = CMA


class _OfSepCMA(_Object):
    of = SepCMA


class _OfCMAwM(_Object):
    of = CMAwM


def _reconstruct(*_: object) -> _Array:
    """What NumPy calls before it gives the array its state."""
    return _Array()


def _scalar(numbers: _Numbers, content: bytes) -> Any:
    return np.frombuffer(content, numbers.dtype, 1)[0]


class _Unpickler(pickle.Unpickler):
    """Knows what optimizers consist of, and makes stand-ins of it: no code of others is called."""

    _KNOWN: ClassVar = {
        ("cmaes._cma", "CMA"): _OfCMA,
        ("cmaes._sepcma", "SepCMA"): _OfSepCMA,
        ("cmaes._cmawm", "CMAwM"): _OfCMAwM,
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _Numbers,
        ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy._core.multiarray", "scalar"): _scalar,
        ("numpy.core.multiarray", "_reconstruct"): _reconstruct,  # as NumPy 1 says
        ("numpy.core.multiarray", "scalar"): _scalar,
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._KNOWN[module, name]
        except KeyError:
            raise ValueError(f"it asks for {f'{module}.{name}'!a}, which no optimizer needs") from None


def _built(found: Any) -> Any:
    """The optimizer, array or number that a stand-in stands for."""
    if isinstance(found, _Array):
        return found.array
    if isinstance(found, _Object):
        state = {key: _built(value) for key, value in found.state.items()}
        made = found.of.__new__(found.of)
        if isinstance(made, CMAwM):
            made.__dict__.update(state)
        else:
            made.__setstate__(state)
        return made
    if found is None or isinstance(found, bool | int | float | np.generic):
        return found
    raise ValueError(f"it has a {type(found).__name__}")
