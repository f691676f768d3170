"""Join adapters to a model and leave no trace.

Requirements this file exists for:
- leaving restores every touched weight bitwise, also after an exception, also after 1,000 swaps in bf16: originals are
  stored and written back, never recovered by subtracting;
- adapters may come and go in any order, so one ledger per model keeps the first original of every touched entry;
- an original that a zero value would rewrite is not written (``-0.0 + 0.0`` is ``0.0``: the bits would change);
- nothing is written before everything that could fail has been gathered.
"""

import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from kusabi.adapters.sparse_delta import SparseDelta, check_fits
from kusabi.errors import AdapterError


@dataclass
class _Page:
    """Ledger page of one weight: the untouched values of every position that an attached adapter covers."""

    indices: Tensor  # (u,) int64, rising
    originals: Tensor  # (u,) in the weight's own dtype


@dataclass
class _Ledger:
    attached: list[SparseDelta] = field(default_factory=list)
    pages: dict[str, _Page] = field(default_factory=dict)


_LEDGERS: "weakref.WeakKeyDictionary[nn.Module, _Ledger]" = weakref.WeakKeyDictionary()


@contextmanager
def attached(module: nn.Module, *deltas: SparseDelta) -> Iterator[nn.Module]:
    """The model with the deltas folded into its weights; bitwise as before on leaving, however it is left.

    Deltas on the same entries add up. Values are read whenever an adapter comes to or goes from the same weight: change
    them outside.

    Raises:
        AdapterError: If a delta does not fit the model, or is attached already. Nothing is written then.
    """
    with ExitStack() as stack:
        for delta in deltas:
            stack.callback(_leave, module, delta, _ledger(module).attached.count(delta))
            _join(module, delta)
        yield module


@torch.no_grad()
def merge(module: nn.Module, delta: SparseDelta) -> None:
    """Write a delta into the weights for good. Meant for a copy of the backbone that is exported.

    Raises:
        AdapterError: If an adapter is attached, or the delta does not fit.
    """
    if _ledger(module).attached:
        raise AdapterError("leave all attached adapters before merging one for good")
    parameters = dict(module.named_parameters())
    check_fits(delta, parameters)
    for name, indices, values in delta.parts():
        weight = parameters[name]
        at = indices.to(weight.device, torch.int64)
        _write(weight, at, folded(_read(weight, at), values.to(weight.device)))


def folded(originals: Tensor, values: Tensor) -> Tensor:
    """``originals + values`` summed in fp32 and rounded to the originals' dtype; bits kept where the value is zero."""
    return torch.where(values == 0, originals, (originals.float() + values.float()).to(originals.dtype))


def _ledger(module: nn.Module) -> _Ledger:
    return _LEDGERS.setdefault(module, _Ledger())


def _join(module: nn.Module, delta: SparseDelta) -> None:
    ledger = _ledger(module)
    if delta in ledger.attached:
        raise AdapterError("this adapter is attached already; leave it first, or attach a copy")
    parameters = dict(module.named_parameters())
    check_fits(delta, parameters)
    pages = {name: _grown(ledger.pages.get(name), parameters[name], indices) for name, indices, _ in delta.parts()}
    ledger.pages.update(pages)  # all originals are safe before the first write
    ledger.attached.append(delta)
    _refold(ledger, parameters, delta.names)


def _leave(module: nn.Module, delta: SparseDelta, before: int) -> None:
    ledger = _ledger(module)
    if ledger.attached.count(delta) == before:
        return  # joining failed before anything was touched
    ledger.attached.remove(delta)
    parameters = dict(module.named_parameters())
    try:
        _refold(ledger, parameters, delta.names)
    except BaseException:  # Ctrl-C halfway: once more, whole, since nothing else would ever restore the rest
        _refold(ledger, parameters, delta.names)
        raise
    for name in delta.names:
        if not any(name in other.slices for other in ledger.attached):
            del ledger.pages[name]


@torch.no_grad()
def _grown(page: _Page | None, weight: nn.Parameter, indices: Tensor) -> _Page:
    """The page with the positions of one more delta; known originals win over what the weight holds now."""
    wanted = indices.to(weight.device, torch.int64)
    if page is None:
        return _Page(wanted, _read(weight, wanted))
    union = torch.cat([page.indices, wanted]).unique()
    originals = _read(weight, union)
    originals[torch.searchsorted(union, page.indices)] = page.originals
    return _Page(union, originals)


@torch.no_grad()
def _refold(ledger: _Ledger, parameters: dict[str, nn.Parameter], names: tuple[str, ...]) -> None:
    """Write originals plus the sum of all attached values, in the order of attaching."""
    for name in names:
        page, weight = ledger.pages[name], parameters[name]
        total = torch.zeros(len(page.indices), dtype=torch.float32, device=weight.device)
        for delta in ledger.attached:
            if part := delta.slices.get(name):
                at = torch.searchsorted(page.indices, delta.indices[part].to(weight.device, torch.int64))
                total.index_add_(0, at, delta.values.data[part].to(weight.device, torch.float32))
        _write(weight, page.indices, folded(page.originals, total))


def _read(weight: Tensor, indices: Tensor) -> Tensor:
    """Entries at flat positions, also of weights that are not contiguous."""
    return weight.detach().reshape(-1)[indices] if weight.is_contiguous() else weight.detach().take(indices)


def _write(weight: Tensor, indices: Tensor, entries: Tensor) -> None:
    if weight.is_contiguous():
        weight.detach().view(-1).index_copy_(0, indices, entries)
    else:
        weight.detach().put_(indices, entries)
