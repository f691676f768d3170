"""Join adapters to a model and leave no trace.

Requirements this file exists for:
- leaving restores every touched weight bitwise, also after an exception, also after 1,000 swaps in bf16: originals are
  stored and written back, never recovered by subtracting;
- adapters may come and go in any order, so one ledger per model keeps the first original of every touched entry;
- an original that a zero value would rewrite is not written (``-0.0 + 0.0`` is ``0.0``: the bits would change);
- nothing is written before everything that could fail has been gathered;
- threads come and go one after the other, or one would take what another has just written for an original.

Inserted parts write nothing: they hook into the modules when they come and are unhooked when they go.

A sparse delta that comes to a model where no other is on its weights, and has been there before, takes the short way of
``fold.py``: the same writes, prepared once.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from kusabi.adapters.fold import Fold, folded, suits, weights_of
from kusabi.adapters.ledger import Ledger, Page, ledger_of
from kusabi.adapters.part import AdapterPart, Inserted, WeightDelta, check_all_fit, forget_compiled, on_leaving, unhook
from kusabi.adapters.sparse_delta import SparseDelta
from kusabi.errors import AdapterError


@contextmanager
def attached(module: nn.Module, *parts: AdapterPart) -> Iterator[nn.Module]:
    """The model with the parts folded into its weights or hooked to its modules; bitwise as before on leaving.

    Deltas on the same entries add up, also those that several threads attach at once: requests that are answered at the
    same time need turns, or a model each. Values are read whenever an adapter comes to or goes from the same weight:
    change them outside.

    A model may have been compiled before. Deltas are written into weights, which compiled code reads at every call.
    Inserted parts are hooks, which it does not look at: whenever one comes or goes, all that ``torch.compile`` made in
    this process is compiled anew. Swap deltas where swaps must be quick. Attach to the model itself, not to what
    ``torch.compile`` gave.

    Raises:
        AdapterError: Listing all mismatches, if parts do not fit the model; or if one is attached already. Nothing is
            written then.
    """
    check_all_fit([part for part in parts if not _known(module, part)], module)
    joined: set[AdapterPart] = set()  # here; a part that another thread has attached is not ours to take away
    with ExitStack() as stack:
        for part in parts:
            on_leaving(stack, _leave, module, part, joined)
            _join(module, part, joined)
        yield module


@torch.no_grad()
def merge(module: nn.Module, *parts: AdapterPart) -> None:
    """Write deltas into the weights for good. Meant for a copy of the backbone that is exported.

    Raises:
        AdapterError: If an adapter is attached, parts do not fit (listing all mismatches), or one cannot be merged.
    """
    ledger = ledger_of(module)
    with ledger.lock:
        if ledger.attached:
            raise AdapterError("leave all attached adapters before merging one for good")
        check_all_fit(parts, module)
        parameters = dict(module.named_parameters())
        for name, amounts in additions(parts).items():
            _write(parameters[name], None, with_all(_read(parameters[name], None), amounts))


def additions(parts: Sequence[AdapterPart]) -> dict[str, list[tuple[Tensor | None, Tensor]]]:
    """Weight -> positions and amounts, as ``WeightDelta.added`` gives them, of one delta after the other.

    Raises:
        AdapterError: If a part is no delta.
    """
    found: dict[str, list[tuple[Tensor | None, Tensor]]] = {}
    for part in parts:
        if not isinstance(part, WeightDelta):
            raise AdapterError(
                f"a {part.kind.replace('_', ' ')} computes beside the model and cannot be merged; keep it attached"
            )
        for name in part.weights:
            found.setdefault(name, []).append(part.added(name))
    return found


def with_all(originals: Tensor, amounts: Sequence[tuple[Tensor | None, Tensor]]) -> Tensor:
    """What the entries of a weight are with deltas attached to it, in the order given, bitwise.

    Args:
        originals: ``(n,)``, all entries.
        amounts: Of each delta, as ``additions`` gives them.

    Returns:
        ``(n,)`` in the dtype of the originals.
    """
    total = torch.zeros(len(originals), dtype=torch.float32, device=originals.device)
    for indices, added in amounts:  # summed up first: each rounding to the weight's dtype would cost bits
        _add(total, None, indices, added)
    return folded(originals, total)


def _join(module: nn.Module, part: AdapterPart, joined: set[AdapterPart]) -> None:
    ledger = ledger_of(module)
    with ledger.lock:
        if part in ledger.attached:
            raise AdapterError("this adapter is attached already; leave it first, or attach a copy")
        joined.add(part)
        if isinstance(part, Inserted):
            ledger.handles[part] = part.join(module)
            ledger.attached.append(part)
        elif isinstance(part, WeightDelta):
            _join_weights(ledger, module, part)
    if isinstance(part, Inserted):
        forget_compiled()  # waits for threads that compile, so not with the lock in hand


def _join_weights(ledger: Ledger, module: nn.Module, part: WeightDelta) -> None:
    parameters = _weights(module, part.weights)
    if (fold := _fold(ledger, part, parameters)) and ledger.pages.keys().isdisjoint(part.weights):
        _join_alone(ledger, part, fold, [*parameters.values()])
        return
    pages = {name: _grown(ledger.pages.get(name), parameters[name], part, name) for name in part.weights}
    ledger.pages.update(pages)  # all originals are safe before the first write
    ledger.attached.append(part)
    _refold(ledger, parameters, part.weights)


def _join_alone(ledger: Ledger, part: WeightDelta, fold: Fold, weights: list[nn.Parameter]) -> None:
    fold.read(weights)
    entries = zip(part.weights, fold.positions, fold.originals, strict=True)
    ledger.pages.update({name: Page(at, originals, part) for name, at, originals in entries})
    ledger.attached.append(part)
    fold.write(weights, part.values.data)


def _leave(module: nn.Module, part: AdapterPart, joined: set[AdapterPart]) -> None:
    """Wherever joining stopped, and wherever leaving did the last time."""
    if part not in joined:
        return
    ledger = ledger_of(module)
    with ledger.lock:
        unhook(ledger.handles.get(part, ()))
        ledger.handles.pop(part, None)
        if part in ledger.attached:
            ledger.attached.remove(part)
        if isinstance(part, WeightDelta):
            _leave_weights(ledger, module, part)
    if isinstance(part, Inserted):
        forget_compiled()
    joined.remove(part)


def _leave_weights(ledger: Ledger, module: nn.Module, part: WeightDelta) -> None:
    names = tuple(name for name in part.weights if name in ledger.pages)
    parameters, fold = _weights(module, names), ledger.folds.get(part)
    if fold is not None and not ledger.deltas and fold.made([ledger.pages[name].originals for name in names]):
        fold.restore([*parameters.values()])
        ledger.pages.clear()
        return
    _refold(ledger, parameters, names)
    for name in names:
        if not any(name in other.weights for other in ledger.deltas):
            del ledger.pages[name]


def _weights(module: nn.Module, names: tuple[str, ...]) -> dict[str, nn.Parameter]:
    """In the order of the names, which the model has."""
    found = weights_of(module, names)
    assert found is not None, "a part that does not fit is refused before"
    return dict(zip(names, found, strict=True))


def _fold(ledger: Ledger, part: WeightDelta, weights: dict[str, nn.Parameter]) -> Fold | None:
    """Where a sparse delta lies in this model, found once; None for what has no such place."""
    found = ledger.folds.get(part)
    if found is not None and found.holds(part, [*weights.values()]):
        return found
    if not isinstance(part, SparseDelta) or not suits([*weights.values()]):
        return None
    ledger.folds[part] = Fold(part, [*weights.values()])
    return ledger.folds[part]


def _known(module: nn.Module, part: AdapterPart) -> bool:
    """Whether a part was here before, and neither it nor the model has changed since: it fits as it did."""
    ledger = ledger_of(module)
    if not isinstance(part, WeightDelta) or (fold := ledger.folds.get(part)) is None:
        return False
    weights = weights_of(module, part.weights)
    return weights is not None and fold.holds(part, weights)


@torch.no_grad()
def _grown(page: Page | None, weight: nn.Parameter, part: WeightDelta, name: str) -> Page:
    """The page with the positions of one more delta; known originals win over what the weight holds now."""
    if page is not None and page.indices is None:
        return Page(None, page.originals, None)
    indices = part.added(name)[0]
    wanted = None if indices is None else indices.to(weight.device, torch.int64)
    if page is None or page.indices is None:
        return Page(wanted, _read(weight, wanted), part)
    if wanted is None:
        originals = _read(weight, None)
        originals[page.indices] = page.originals
        return Page(None, originals, None)
    union = torch.cat([page.indices, wanted]).unique()
    originals = _read(weight, union)
    originals[torch.searchsorted(union, page.indices)] = page.originals
    return Page(union, originals, None)


@torch.no_grad()
def _refold(ledger: Ledger, parameters: dict[str, nn.Parameter], names: tuple[str, ...]) -> None:
    """Write originals plus the sum of all attached amounts, in the order of attaching."""
    for name in names:
        page, weight = ledger.pages[name], parameters[name]
        covering = [delta for delta in ledger.deltas if name in delta.weights]
        if not covering:
            _write(weight, page.indices, page.originals)
        elif covering == [page.owner]:
            _write(weight, page.indices, folded(page.originals, covering[0].added(name)[1].to(weight.device)))
        else:
            total = torch.zeros(len(page.originals), dtype=torch.float32, device=weight.device)
            for delta in covering:
                _add(total, page.indices, *delta.added(name))
            _write(weight, page.indices, folded(page.originals, total))


def _add(total: Tensor, page: Tensor | None, indices: Tensor | None, amounts: Tensor) -> None:
    amounts = amounts.to(total.device, torch.float32)
    if indices is None:
        total += amounts.flatten()
    else:
        at = indices.to(total.device, torch.int64)
        total.index_add_(0, at if page is None else torch.searchsorted(page, at), amounts)


def _read(weight: Tensor, indices: Tensor | None) -> Tensor:
    """Entries at flat positions, also of weights that are not contiguous; a copy."""
    if indices is None:
        return weight.detach().flatten().clone()
    return weight.detach().reshape(-1)[indices] if weight.is_contiguous() else weight.detach().take(indices)


def _write(weight: Tensor, indices: Tensor | None, entries: Tensor) -> None:
    if indices is None:
        weight.detach().copy_(entries.view(weight.shape))
    elif weight.is_contiguous():
        weight.detach().view(-1).index_copy_(0, indices, entries)
    else:
        weight.detach().put_(indices, entries)
