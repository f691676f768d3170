"""Bytes and milliseconds of a 0.1 % adapter on all linear weights of a CLIP ViT-B/16, from its shapes alone."""

import time

import pytest
import torch
from torch import nn

from kusabi.adapters.attach import attached
from kusabi.adapters.card import check_backbone
from kusabi.adapters.checkpoint import WEIGHTS, Adapter, load_adapter, save_adapter
from kusabi.adapters.sparse_delta import SparseDelta
from kusabi.adapters.support import random_support

WIDTHS = {"vision": 768, "text": 512}
SIZES = {
    f"{tower}.{layer}.{name}": sides
    for tower, d in WIDTHS.items()
    for layer in range(12)
    for name, sides in {
        "q": (d, d),
        "k": (d, d),
        "v": (d, d),
        "o": (d, d),
        "fc1": (4 * d, d),
        "fc2": (d, 4 * d),
    }.items()
}


def adapter_of(rule, seed=5):
    sizes = {name: rows * columns for name, (rows, columns) in SIZES.items()}
    delta = SparseDelta({n: random_support(size, round(size / 1000), seed, f"{n}.weight") for n, size in sizes.items()})
    delta = SparseDelta({f"{n}.weight": indices for n, indices, _ in delta.parts()})
    delta.values.data.normal_(std=0.01, generator=torch.Generator().manual_seed(0))
    card = {
        "kind": "sparse_delta", "classes": ["a", "b"], "prompts": [["a"], ["b"]], "embedding_size": 512, "seed": seed,
        "backbone": {
            "source": "clip", "digest": "0" * 64, "preprocessing": {},
            "tensors": {f"{n}.weight": "0" * 64 for n in SIZES},
        },
        "head": {"kind": "text"}, "support_rule": rule,
        "targets": [{"tensor": f"{n}.weight", "size": size} for n, size in sizes.items()],
    }  # fmt: skip
    return Adapter((delta,), {}, card)


@pytest.mark.parametrize(("rule", "most"), [("gradient", 3.5), ("random", 2.01)])
def test_the_whole_file_is_small_and_a_random_support_is_but_its_seed(rule, most, tmp_path):
    adapter = adapter_of(rule)
    save_adapter(tmp_path, adapter)
    assert (tmp_path / WEIGHTS).stat().st_size <= most * len(adapter.delta)
    loaded = load_adapter(tmp_path)
    assert torch.equal(loaded.delta.indices, adapter.delta.indices)
    assert torch.equal(loaded.delta.values, adapter.delta.values.to(torch.bfloat16).float())


def test_a_random_support_that_moved_is_stored_whole(tmp_path):
    adapter = adapter_of("random", seed=5)
    moved = Adapter(adapter.parts, {}, {**adapter.card, "seed": 6})
    save_adapter(tmp_path, moved)
    assert torch.equal(load_adapter(tmp_path).delta.indices, adapter.delta.indices)


@pytest.mark.slow  # a time on this processor, of a model of half a gigabyte
def test_loading_verifying_and_attaching_takes_less_than_30_ms(tmp_path):
    adapter = adapter_of("gradient")
    save_adapter(tmp_path, adapter)
    module = nn.Module()
    for path, (rows, columns) in SIZES.items():
        parent = module
        *above, last = path.split(".")
        for name in above:
            if name not in parent._modules:
                parent.add_module(name, nn.Module())
            parent = parent.get_submodule(name)
        parent.add_module(last, nn.Linear(columns, rows, bias=False))
    about, seconds = adapter.card["backbone"], []
    for _ in range(7):
        started = time.perf_counter()
        loaded = load_adapter(tmp_path)
        check_backbone(loaded.card, about["digest"], about["tensors"], {})
        with attached(module, *loaded.parts):
            seconds.append(time.perf_counter() - started)
    assert sorted(seconds)[3] < 0.03
