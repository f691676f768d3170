"""Train deltas written into the weights: the backbone's own kernels, no second copy in the graph.

Each targeted weight becomes an fp32 working copy (a bf16 weight would swallow small steps); one that is fp32 already
and covered by a sparse delta alone is its own, whose few originals are kept and written back. A hook takes its dense
gradient the moment it exists, hands it to the parts that are added to the weight (a sparse delta takes the K entries of
it) and frees it, so that one dense gradient is alive at a time.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from kusabi.adapters.fold import folded
from kusabi.adapters.part import AdapterPart, Inserted, WeightDelta, check_all_fit, forget_compiled, on_leaving, unhook
from kusabi.errors import AdapterError

Watch = Callable[[str, Tensor], None]
"""Shown a target's name and its dense gradient, once a backward, before that is freed; it must not keep it."""


Place = tuple[Tensor, Tensor]
"""Positions ``(k,)`` int64 of a weight, and what it holds there without any part, fp32."""


class WorkingCopy:
    """The targeted weights while they are trained.

    Call ``fold()`` after every change of the values, ``follow()`` after a change of a support.

    Args:
        module: The model.
        covering: Weight name -> the parts that are added to it there, at least one each.
    """

    def __init__(self, module: nn.Module, covering: Mapping[str, Sequence[WeightDelta]]) -> None:
        parameters = dict(module.named_parameters())
        self.covering = covering
        self.weights = {name: parameters[name] for name in covering}
        self.frozen = {name: weight.data for name, weight in self.weights.items()}
        self._read_originals()

    def _read_originals(self) -> None:
        """Where one part alone covers a weight at single positions, only these are ever written."""
        places: dict[str, Place] = {}
        for name, parts in self.covering.items():
            at = parts[0].added(name)[0]
            if len(parts) == 1 and at is not None:
                at = at.to(torch.int64)
                places[name] = at, self.frozen[name].reshape(-1)[at].to(torch.float32)
        self._places = places  # all at once: Ctrl-C must find positions and originals that belong together

    def in_place(self, name: str) -> bool:
        """Whether a weight needs no copy: it is fp32 already, and what is written there can be put back."""
        frozen = self.frozen[name]
        return name in self._places and frozen.dtype == torch.float32 and frozen.is_contiguous()

    @torch.no_grad()
    def fold(self) -> None:
        """Write ``original + added`` into the working copies."""
        for name, parts in self.covering.items():
            flat = self.weights[name].data.view(-1)
            if name in self._places:
                at, originals = self._places[name]
                flat.index_copy_(0, at, folded(originals, parts[0].added(name)[1]))
                continue
            flat.copy_(self.frozen[name].reshape(-1))
            for at, amounts in (part.added(name) for part in parts):
                if at is None:
                    flat += amounts.flatten()
                else:
                    flat.index_add_(0, at.to(torch.int64), amounts)

    @torch.no_grad()
    def follow(self) -> None:
        """Take up a support that has moved: what left is the frozen value again, bitwise, what entered is folded."""
        for name in self._places:
            self.unfold(name)
        self._read_originals()
        self.fold()

    @torch.no_grad()
    def unfold(self, name: str) -> None:
        """Write the originals back into one working copy."""
        at, originals = self._places[name]
        self.weights[name].data.view(-1).index_copy_(0, at, originals)


@contextmanager
def working_copy(module: nn.Module, *parts: AdapterPart, watch: Watch | None = None) -> Iterator[WorkingCopy]:
    """Train parts on a model: fp32 copies of the targeted weights are swapped in, inserted parts are hooked.

    The frozen tensors are back on leaving, bitwise. Parts and module must live on one device. Half-precision backbones
    train under autocast, one context for each forward: autocast keeps the half-precision copy of a weight and would not
    see the next fold. What ``torch.compile`` made of the model trains too: compiled for sparse deltas, compiled anew
    for inserted parts, and eagerly, as everything does meanwhile, where low-rank parts train beside their layers.

    Raises:
        AdapterError: Listing all mismatches, if parts do not fit the module.
    """
    device = next(module.parameters()).device
    check_all_fit(parts, module)
    for part in parts:
        if part.values.device != device:
            raise AdapterError(f"the adapter is on {part.values.device}, the model elsewhere; move the adapter first")
    with ExitStack() as stack:
        copy = WorkingCopy(module, _hooked(module, parts, stack))
        for name, weight in copy.weights.items():
            on_leaving(stack, _return, weight, copy.frozen[name], weight.requires_grad)
            if copy.in_place(name):
                on_leaving(stack, copy.unfold, name)
            else:
                weight.data = copy.frozen[name].detach().to(torch.float32, copy=True).contiguous()
            weight.requires_grad_(True)
            take = _taker(copy, name, watch)
            stack.callback(weight.register_post_accumulate_grad_hook(take).remove)  # in one line: Ctrl-C comes between
        copy.fold()
        yield copy


def _hooked(module: nn.Module, parts: Sequence[AdapterPart], stack: ExitStack) -> dict[str, list[WeightDelta]]:
    """Hook what trains beside the model; the weights that are left, with the parts that are added to each."""
    covering: dict[str, list[WeightDelta]] = {}
    inserted = False
    handles: list[RemovableHandle] = []
    on_leaving(stack, unhook, handles)  # before there are any: Ctrl-C may come between
    for part in parts:
        if isinstance(part, Inserted):
            handles += part.join(module)
            inserted = True
        elif isinstance(part, WeightDelta):
            handles += (beside := part.beside(module)).values()
            if beside:  # these hooks take gradients at their leaves, which compiled code passes over without a word
                stack.enter_context(torch.compiler.set_stance("force_eager"))
            for name in part.weights:
                if name not in beside:
                    covering.setdefault(name, []).append(part)
    if inserted:
        stack.callback(forget_compiled)
        forget_compiled()
    return covering


def _taker(copy: WorkingCopy, name: str, watch: Watch | None):
    def take(weight: Tensor) -> None:
        assert weight.grad is not None, "the hook runs after the gradient was accumulated"
        for part in copy.covering[name]:
            part.take(name, weight.grad)
        if watch is not None:
            watch(name, weight.grad)
        weight.grad = None

    return take


def _return(weight: nn.Parameter, frozen: Tensor, requires_grad: bool) -> None:
    weight.grad = None
    weight.data = frozen
    weight.requires_grad_(requires_grad)


@contextmanager
def dense_gradients(module: nn.Module, names: tuple[str, ...]) -> Iterator[dict[str, Tensor]]:
    """Collect dense fp32 gradients of named weights, for support rules; ``{}`` fills while backward runs."""
    parameters = dict(module.named_parameters())
    collected: dict[str, Tensor] = {}
    with ExitStack() as stack:
        for name in names:
            weight = parameters[name]
            on_leaving(stack, _return, weight, weight.data, weight.requires_grad)
            weight.requires_grad_(True)

            def take(weight: Tensor, name: str = name) -> None:
                assert weight.grad is not None, "the hook runs after the gradient was accumulated"
                dense = weight.grad.to(torch.float32)
                collected[name] = collected[name] + dense if name in collected else dense.clone()
                weight.grad = None

            stack.callback(weight.register_post_accumulate_grad_hook(take).remove)
        yield collected
