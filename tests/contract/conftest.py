"""Every kind of adapter, small models of several families, and the promise that no test leaves a trace on them."""

import copy
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np
import pytest
import torch
from PIL import Image
from tests.adapters.conftest import BLOCKS, build_towers
from torch import Tensor, nn

from kusabi.adapters import attach, bottleneck_birth, low_rank
from kusabi.adapters.bottleneck_form import checked_form
from kusabi.adapters.checkpoint import Adapter
from kusabi.adapters.granularity import choose
from kusabi.adapters.insertion import insertion_points
from kusabi.adapters.ledger import ledger_of
from kusabi.adapters.outline import outline
from kusabi.adapters.part import AdapterPart
from kusabi.adapters.prune import Pruning
from kusabi.adapters.sparse_delta import SparseDelta
from kusabi.adapters.support import random_scores, random_support
from kusabi.adapters.targets import plan
from kusabi.backbones.dual_encoder import load_backbone
from kusabi.data.dataset import Dataset, Example
from kusabi.spec import AdapterSpec

FAMILIES = ("clip", "siglip", "dinov2+bert", "vit+roberta", "fused")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
TEXTS = ["a photo of a cat", "red dog", "the scratched metal plate", "a blue dent"]
UPPER = AdapterSpec(tower="both", layers="last-2", density=0.2)


def sparse(module, blocks, seed, granularity="entry"):
    supports = {}
    for target in plan(module, blocks, UPPER).targets:
        if granularity == "entry":
            supports[target.tensor] = random_support(target.size, target.entries, seed, target.tensor)
        else:
            scores = random_scores(target.size, seed, target.tensor).view(module.get_parameter(target.tensor).shape)
            supports[target.tensor] = choose(scores, target.entries, granularity)
    return (SparseDelta(supports),)


def of_low_rank(module, blocks, seed, rank=2, **options):
    shapes = {
        target.tensor: module.get_parameter(target.tensor).shape for target in plan(module, blocks, UPPER).targets
    }
    return (low_rank.fresh(shapes, rank, 4.0, seed=seed, **options),)


def hybrid(module, blocks, seed):
    return sparse(module, blocks, seed) + of_low_rank(module, blocks, seed)


def bottleneck(module, blocks, seed, pruning=None, **form):
    upper = [name for names in blocks.values() for name in names[-2:]]
    widths = insertion_points(module, upper, "both")
    return (bottleneck_birth.fresh(checked_form({"widths": widths, "size": 4, "seed": seed, **form}), pruning),)


KINDS: dict[str, Callable[[nn.Module, Mapping[str, Sequence[str]], int], tuple[AdapterPart, ...]]] = {
    "sparse delta of entries": sparse,
    "sparse delta of rows": partial(sparse, granularity="row"),
    "low rank": of_low_rank,
    "low rank, stabilised": partial(of_low_rank, rank=3, rank_stabilized=True),
    "low rank, gated": partial(of_low_rank, rank=3, shrinkage=0.1),
    "hybrid": hybrid,
    "bottleneck, sequential": bottleneck,
    "bottleneck, parallel and pruned": partial(
        bottleneck, pruning=Pruning(density=0.4), placement="parallel", activation="gelu", norm=True, scale=2.0,
        dropout=0.3,
    ),
    "bottleneck with experts": partial(bottleneck, experts=3, activation="silu"),
}  # fmt: skip
MERGEABLE = tuple(kind for kind in KINDS if not kind.startswith("bottleneck"))


@dataclass(frozen=True, eq=False)
class Subject:
    """A frozen model; ``answer(module, rows)`` are features ``(rows, D)`` of some pictures and texts, in fp32."""

    module: nn.Module
    blocks: Mapping[str, Sequence[str]]
    answer: Callable[[nn.Module, slice], Tensor]
    born: object = None

    def answers(self, rows=slice(None), module=None):
        return self.answer(self.module if module is None else module, rows)

    def frozen_answers(self, *parts, rows=slice(None)):
        """Without gradients, with parts attached."""
        with torch.no_grad(), attach.attached(self.module, *parts):
            return self.answers(rows)

    def parts(self, kind, seed=0):
        """An adapter that has learned something; every seventh of its values is zero, and so is every first gate."""
        random = torch.Generator().manual_seed(seed)
        parts = self.fresh(kind, seed)
        for part in parts:
            part.values.data += (torch.randn(len(part), generator=random) * 0.2).to(part.values.device)
            part.values.data[::7] = 0.0
            for name, _, values in part.parts():
                if name.endswith(".g"):
                    values[0] = 0.0
        return parts

    def fresh(self, kind, seed=0):
        device = next(self.module.parameters()).device
        return tuple(part.to(device) for part in KINDS[kind](self.module, self.blocks, seed))


def towers(dtype, device):
    """``nn.TransformerEncoder`` layers: attention weights of one fused tensor."""
    pictures, texts = (torch.linspace(0, end, 96).sin().view(4, 3, 8).to(device, dtype) for end in (40, 70))

    def answer(module, rows):
        # Hooks turn torch's fast path off, whose kernels round otherwise.
        fast = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            seen = module["vision"](pictures[rows]), module["text"](texts[rows])
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)
        return torch.cat([one.mean(1) for one in seen], 1).float()

    return Subject(build_towers(dtype=dtype).to(device), BLOCKS, answer)


def dual_encoder(folder, dtype, device):
    backbone = load_backbone(folder, dtype=dtype, device=device)
    pictures = torch.linspace(0, 90, 4 * 3 * 24 * 24).sin().view(4, 3, 24, 24)

    def answer(module, rows):
        run = replace(backbone, module=module)
        return torch.cat([run.embed_images(pictures[rows]), run.embed_texts(TEXTS[rows])], 1)

    return Subject(backbone.module, backbone.blocks, answer)


def state_of(module):
    """All that an adapter could leave behind: bits, strides, places, flags, gradients, hooks, pages of the ledger."""
    digest, marks = hashlib.sha256(), []
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        late = getattr(tensor, "_post_accumulate_grad_hooks", None)
        marks.append(
            (name, tensor.dtype, tensor.stride(), tensor.data_ptr(), tensor.requires_grad, tensor.grad is None)
        )
        marks.append((len(late or ()), len(tensor._backward_hooks or ())))
    for name, layer in module.named_modules():
        marks.append((name, len(layer._forward_hooks), len(layer._forward_pre_hooks), len(layer._backward_hooks)))
    ledger = ledger_of(module)
    return digest.hexdigest(), marks, (len(ledger.attached), len(ledger.pages), len(ledger.handles))


_USED: list[Subject] = []


@pytest.fixture(scope="session")
def subject(tiny):
    """Family, dtype and device -> its model, the same to all tests."""

    @cache
    def made(family, dtype, device):
        found = towers(DTYPES[dtype], device) if family == "fused" else dual_encoder(tiny(family), dtype, device)
        return replace(found, born=state_of(found.module))

    def asked(family="clip", dtype="float32", device="cpu"):
        _USED.append(made(family, dtype, device))
        return _USED[-1]

    return asked


@pytest.fixture(autouse=True)
def no_trace():
    """Whatever a test does: the models that it asked for are as they were born."""
    _USED.clear()
    yield
    for used in {id(used): used for used in _USED}.values():
        assert state_of(used.module) == used.born, "something was left behind"


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="session", params=MERGEABLE)
def mergeable(request):
    return request.param


@pytest.fixture(scope="session", params=[kind for kind in KINDS if kind not in MERGEABLE])
def inserted(request):
    return request.param


@pytest.fixture(scope="session")
def kinds():
    return tuple(KINDS)


@pytest.fixture(scope="session", params=[("clip", dtype) for dtype in DTYPES] + [(f, "float32") for f in FAMILIES[1:]])
def place(request):
    """Every dtype of one family, and the other families."""
    return request.param


@pytest.fixture(scope="session")
def trace():
    return state_of


@pytest.fixture(scope="session")
def stored_adapter():
    """Subject and parts -> an adapter as recipes store it."""

    def made(subject, parts, **card):
        random = torch.Generator().manual_seed(5)
        shapes = {"displacement": (2, 12), "offset": (2,), "log_gain": ()}
        head = {name: torch.randn(shape, generator=random) for name, shape in shapes.items()}
        backbone = {"source": "tiny", "digest": "ab" * 32, "tensors": {"w": "cd"}, "preprocessing": {"size": 24}}
        about = {
            "kind": " + ".join(part.kind for part in parts),
            "targets": outline(subject.module, subject.blocks, parts).to_json()["targets"],
            "backbone": backbone,
            "classes": ["良品", "scratch"],
            "prompts": [["良品"], ["a scratch"]],
            "embedding_size": 12,
            "head": {"kind": "prototypes"},
        }
        return Adapter(parts, head, {**about, **card})

    return made


def picture(file):
    """A flat picture whose colour is the class: ``1/4`` is picture 4 of class 1."""
    label, number = map(int, file.split("/"))
    pixels = np.random.default_rng([label, number]).integers(0, 40, size=(24, 24, 3), dtype=np.uint8)
    pixels[..., label] += 150
    return Image.fromarray(pixels)


@pytest.fixture(scope="session")
def dataset():
    examples = tuple(Example(f"{c}/{i}", c, None, f"{c}{i}".ljust(64, "0")) for c in range(3) for i in range(4))
    return Dataset("colours", ("red", "green", "blue"), examples, (), (), "colours", picture)


@pytest.fixture
def twin():
    """A model like another, to be spoiled."""
    return copy.deepcopy
