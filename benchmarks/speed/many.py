"""Several adapters trained at once on shared activations, beside one after another: where does stacking pay?

Every adapter has weights of its own above the prefix, so that at most calls are saved, not products. Measured is the
pass forward and back to the states through the upper half of the embedded tower, stacked by ``vmap``. Gradients of
values, which cost both sides alike or the stacked one more, are left out. What all could save if they had the same
weights is measured beside it: no way of training many at once can save more than the calls.
"""

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from benchmarks.speed.clock import alternated
from benchmarks.speed.conditions import Conditions
from benchmarks.speed.embedded import SIDE
from benchmarks.speed.record import Record, Spread
from kusabi.backbones.backbone import Backbone
from kusabi.backbones.prefix import enter
from kusabi.training.precision import PLAIN, autocast, resolve

AT_ONCE = (2, 4, 8)


class Upper(nn.Module):
    """A frozen copy of a tower's upper half, attention in plain products; ``(B, tokens, width)`` to such."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        names = backbone.blocks["vision"]
        self.blocks = nn.ModuleList(deepcopy(backbone.module.get_submodule(name)) for name in names[len(names) // 2 :])
        self.requires_grad_(False)
        for block in self.blocks.modules():  # vmap has no rule for the fused one
            if (config := getattr(block, "config", None)) is not None:
                config._attn_implementation_internal = PLAIN

    def forward(self, states: Tensor) -> Tensor:  # noqa: D102
        for block in self.blocks:
            found = block(states)
            states = found[0] if isinstance(found, tuple) else found
        return states


def many(conditions: Conditions) -> list[Record]:
    """A record for each number of adapters: ``ours`` is stacked, ``peer`` in turn, both in seconds an adapter."""
    conditions = replace(conditions, model="mini", input_size=SIDE)
    backbone, precision = conditions.load(), resolve("auto", conditions.device)
    upper, records = Upper(backbone), []
    entering = enter(backbone, torch.zeros(1, 3, SIDE, SIDE, device=backbone.device), 1)[0]
    for count in AT_ONCE[: 1 if conditions.quick else None]:
        states = torch.randn(count, conditions.batch, *entering.shape, device=backbone.device)
        passes = {name: _pass(side, states, precision) for name, side in sides(upper, count).items()}
        found = alternated(passes, conditions.device, repeats=3 * conditions.repeats, warm=2)
        stacked, turns, shared = (_each(found[name], count) for name in ("stacked", "in turn", "shared"))
        records.append(
            Record(
                "many_at_once", "mini", f"{count} adapters, batch {conditions.batch} each",
                turns["median"] / stacked["median"], stacked, turns,
                {"precision": precision, "with one weight for all": shared["median"],
                 "times faster with one weight for all": turns["median"] / shared["median"]},
            )
        )  # fmt: skip
    return records


def sides(upper: Upper, count: int) -> dict[str, Callable[[Tensor], Tensor]]:
    """Ways from the states of all adapters, ``(K, B, tokens, width)``, to their last states, which are the same."""
    own = {
        name: weight.detach().expand(count, *weight.shape).clone()
        for name, weight in upper.named_parameters()
        if weight.dim() == 2
    }

    def one(weights: Mapping[str, Tensor], states: Tensor) -> Tensor:
        return functional_call(upper, dict(weights), (states,))

    return {
        "in turn": lambda states: torch.stack(
            [one({name: weight[i] for name, weight in own.items()}, of) for i, of in enumerate(states)]
        ),
        "stacked": lambda states: vmap(one)(own, states),
        "shared": lambda states: upper(states.flatten(0, 1)).unflatten(0, (count, -1)),
    }


def _pass(side: Callable[[Tensor], Tensor], states: Tensor, precision: str) -> Callable[[], object]:
    def there_and_back() -> None:
        entering = states.detach().requires_grad_()
        with autocast(precision, str(states.device)):
            last = side(entering)
        last[:, :, 0].float().sum().backward()

    return there_and_back


def _each(found: Spread, count: int) -> dict[str, Any]:
    return {"median": found.median / count, "low": found.low / count, "high": found.high / count, "count": found.count}
