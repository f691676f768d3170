"""A setting whose adapter sits elsewhere."""

from dataclasses import replace

from kusabi.adapters.placement import Piece
from kusabi.adapters.targets import plan
from kusabi.spec import AdaptSpec
from kusabi.training.learn import Setting


def deepened(setting: Setting) -> Setting:
    """The same setting in all layers of its tower, with as many entries."""
    adapter = setting.spec.adapter
    return at(setting, str(Piece(adapter.tower, "all", adapter.projections)), setting.plan.entries)


def at(setting: Setting, placement: str, budget: int) -> Setting:
    """The same setting with the adapter elsewhere, at a budget."""
    spec = placed(setting.spec, placement, budget)
    backbone = setting.backbone
    return replace(setting, spec=spec, plan=plan(backbone.module, backbone.blocks, spec.adapter))


def placed(spec: AdaptSpec, placement: str, budget: int) -> AdaptSpec:
    """The spec with a placement instead of tower, layers and projections, and a budget instead of a density."""
    default = type(spec.adapter)()
    fields = {key: getattr(default, key) for key in ("tower", "layers", "projections")}
    adapter = spec.adapter.model_copy(update={**fields, "placement": placement, "budget": budget})
    return spec.model_copy(update={"adapter": adapter})
