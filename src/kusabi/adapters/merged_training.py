"""Train a sparse delta written into the weights: the backbone's own kernels, no second copy in the graph.

Each targeted weight becomes an fp32 working copy (a bf16 weight would swallow small steps). A hook takes its dense
gradient the moment it exists, adds the K entries of it to the flat gradient and frees it, so that one dense gradient
is alive at a time.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from kusabi.adapters.attach import folded
from kusabi.adapters.sparse_delta import SparseDelta, check_fits
from kusabi.errors import AdapterError

Watch = Callable[[str, Tensor], None]
"""Shown a target's name and its dense gradient, once a backward, before that is freed; it must not keep it."""


class WorkingCopy:
    """The targeted weights while they are trained.

    Call ``fold()`` after every change of the values, ``follow()`` after a change of the support.
    """

    def __init__(self, module: nn.Module, delta: SparseDelta) -> None:
        parameters = dict(module.named_parameters())
        check_fits(delta, parameters)
        self.delta = delta
        self.weights = {name: parameters[name] for name in delta.names}
        self.frozen = {name: weight.data for name, weight in self.weights.items()}
        self._read_originals()

    def _read_originals(self) -> None:
        self._at = {name: indices.to(torch.int64) for name, indices, _ in self.delta.parts()}
        self._originals = {
            name: self.frozen[name].reshape(-1)[self._at[name]].to(torch.float32) for name in self.delta.names
        }

    @torch.no_grad()
    def fold(self) -> None:
        """Write ``original + value`` into the working copies."""
        for name, _, values in self.delta.parts():
            entries = folded(self._originals[name], values)
            self.weights[name].data.view(-1).index_copy_(0, self._at[name], entries)

    @torch.no_grad()
    def follow(self) -> None:
        """Take up a support that has moved: what left is the frozen value again, bitwise, what entered is folded."""
        for name, weight in self.weights.items():
            weight.data.view(-1).index_copy_(0, self._at[name], self._originals[name])
        self._read_originals()
        self.fold()

    def gather(self, name: str, dense: Tensor) -> None:
        """Add the K entries of a dense gradient to the flat gradient."""
        if self.delta.values.grad is None:
            self.delta.values.grad = torch.zeros_like(self.delta.values)
        self.delta.values.grad[self.delta.slices[name]] += dense.reshape(-1)[self._at[name]].to(torch.float32)


@contextmanager
def working_copy(module: nn.Module, delta: SparseDelta, watch: Watch | None = None) -> Iterator[WorkingCopy]:
    """Swap fp32 copies of the targeted weights in for training; the frozen tensors return untouched on leaving.

    The delta and the module must live on one device. Half-precision backbones train under autocast, one context for
    each forward: autocast keeps the half-precision copy of a weight and would not see the next fold.

    Raises:
        AdapterError: If the delta does not fit the module.
    """
    copy = WorkingCopy(module, delta)
    if delta.values.device != next(iter(copy.weights.values())).device:
        raise AdapterError(f"the adapter is on {delta.values.device}, the model elsewhere; move the adapter first")
    with ExitStack() as stack:
        for name, weight in copy.weights.items():
            stack.callback(_return, weight, copy.frozen[name], weight.requires_grad)
            weight.data = copy.frozen[name].detach().to(torch.float32, copy=True).contiguous()
            weight.requires_grad_(True)
            hook = weight.register_post_accumulate_grad_hook(_taker(copy, name, watch))
            stack.callback(hook.remove)
        copy.fold()
        yield copy


def _taker(copy: WorkingCopy, name: str, watch: Watch | None):
    def take(weight: Tensor) -> None:
        assert weight.grad is not None, "the hook runs after the gradient was accumulated"
        copy.gather(name, weight.grad)
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
            stack.callback(_return, weight, weight.data, weight.requires_grad)
            weight.requires_grad_(True)

            def take(weight: Tensor, name: str = name) -> None:
                assert weight.grad is not None, "the hook runs after the gradient was accumulated"
                dense = weight.grad.to(torch.float32)
                collected[name] = collected[name] + dense if name in collected else dense.clone()
                weight.grad = None

            hook = weight.register_post_accumulate_grad_hook(take)
            stack.callback(hook.remove)
        yield collected
