"""What is attached to a model, and the originals of all that was overwritten: one ledger a model, for all threads."""

import weakref
from dataclasses import dataclass, field
from threading import RLock

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from kusabi.adapters.fold import Fold
from kusabi.adapters.part import AdapterPart, WeightDelta


@dataclass
class Page:
    """Ledger page of one weight: the untouched values of every position that an attached adapter covers."""

    indices: Tensor | None  # (u,) int64, rising; None for the whole weight
    originals: Tensor  # (u,) in the weight's own dtype
    owner: AdapterPart | None  # the delta whose positions these are, one for one; None once others came


@dataclass
class Ledger:
    """Read and written with the lock in hand, which is given back before the model is used."""

    attached: list[AdapterPart] = field(default_factory=list)
    pages: dict[str, Page] = field(default_factory=dict)
    handles: dict[AdapterPart, list[RemovableHandle]] = field(default_factory=dict)
    folds: "weakref.WeakKeyDictionary[AdapterPart, Fold]" = field(default_factory=weakref.WeakKeyDictionary)
    lock: RLock = field(default_factory=RLock)

    @property
    def deltas(self) -> list[WeightDelta]:
        """The attached parts that are written into weights, in the order in which they came."""
        return [part for part in self.attached if isinstance(part, WeightDelta)]


_LEDGERS: "weakref.WeakKeyDictionary[nn.Module, Ledger]" = weakref.WeakKeyDictionary()
_OPENING = RLock()


def ledger_of(module: nn.Module) -> Ledger:
    """The one ledger of a model."""
    if (found := _LEDGERS.get(module)) is not None:
        return found
    with _OPENING:
        return _LEDGERS.setdefault(module, Ledger())
