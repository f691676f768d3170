"""Adapters that a new one is trained beside: it leaves every entry of theirs alone (the shared-budget mode)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from kusabi.adapters.card import check_backbone
from kusabi.adapters.checkpoint import load_adapter
from kusabi.adapters.free_support import taken_positions
from kusabi.adapters.sparse_delta import SparseDelta
from kusabi.backbones.backbone import Backbone
from kusabi.errors import AdapterError, KusabiError, SpecError, listed
from kusabi.recipes.run_folder import adapter_folder
from kusabi.spec import AdaptSpec


@dataclass(frozen=True)
class Beside:
    """Digests of the adapters, rising, and the positions of every weight that they train."""

    digests: tuple[str, ...]
    taken: Mapping[str, Tensor]


ALONE = Beside((), {})


def refuse_beside(spec: AdaptSpec, verb: str) -> None:
    """For a verb whose adapters are tried and thrown away, each alone on the model.

    Raises:
        SpecError: If the spec names adapters beside: they would be silently without effect.
    """
    if spec.adapter.beside:
        raise SpecError(f"--beside: {verb} tries each adapter alone on the model; leave it to adapt")


def digests_beside(runs: Sequence[str]) -> tuple[str, ...]:
    """The digests of ``adapters_beside`` alone, for which no backbone is needed.

    Raises:
        AdapterError: Listing every adapter that cannot be read.
    """
    digests, wrong = set[str](), list[str]()
    for run in runs:
        try:
            digests.add(load_adapter(adapter_folder(Path(run))).card["digest"])
        except KusabiError as error:
            wrong.append(f"{run}: {error}")
    if wrong:
        raise AdapterError(f"adapters beside that cannot be read: {listed(wrong, '; ')}")
    return tuple(sorted(digests))


def adapters_beside(runs: Sequence[str], backbone: Backbone) -> Beside:
    """Read the adapters that a new one is to be trained beside.

    Args:
        runs: Run folders or adapter folders; their order does not matter.
        backbone: What the new one is trained on.

    Raises:
        AdapterError: Listing every adapter that cannot be read, that was made for another backbone, or that holds
            something else than sparse deltas.
    """
    digests, deltas, wrong = set[str](), list[SparseDelta](), list[str]()
    for run in runs:
        try:
            adapter = load_adapter(adapter_folder(Path(run)))
            preprocessing = backbone.preprocessing.to_json()
            check_backbone(adapter.card, backbone.digest, backbone.tensor_digests, preprocessing)
        except KusabiError as error:
            wrong.append(f"{run}: {error}")
            continue
        others = [part.kind for part in adapter.parts if not isinstance(part, SparseDelta)]
        wrong += [f"{run}: a {kind.replace('_', ' ')} leaves no entries free, only sparse deltas do" for kind in others]
        digests.add(adapter.card["digest"])
        deltas += [part for part in adapter.parts if isinstance(part, SparseDelta)]
    if wrong:
        raise AdapterError(f"nothing can be trained beside these adapters: {listed(wrong, '; ')}")
    names = dict.fromkeys(name for delta in deltas for name in delta.names)
    return Beside(tuple(sorted(digests)), {name: taken_positions(deltas, name) for name in names})
