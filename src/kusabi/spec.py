"""What was asked: one frozen, typed value that a TOML file, the command line and Python all fill in.

Every field is declared here once, with its default, its bounds and the sentence that ``--help`` shows.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

SCHEMA = 1
AUTO = "auto"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


_Share = Annotated[float, Field(ge=0, le=1)]


class BackboneSpec(_Part):
    """Which frozen model, and how pictures are fitted to it."""

    backbone: str = Field(default="mini", description="Model folder, Hub id, or 'mini' for the embedded one.")
    revision: str | None = Field(default=None, description="Commit, branch or tag of a Hub id.")
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        default="float32", description="Type of the resident weights."
    )
    input_size: int | None = Field(
        default=None, ge=14, le=2048, description="Pixels a side; the model's own when absent."
    )
    fit: Literal["pad", "squash", "crop"] = Field(default="pad", description="How a picture that is not square fits.")


class DataSpec(_Part):
    """Which pictures, which of them are learned from, and what the classes are called."""

    shots: int = Field(default=16, ge=1, le=100_000, description="Labelled pictures per class to learn from.")
    label_column: str = Field(default="label", description="Column of the metadata file that holds the class.")
    group_column: str | None = Field(
        default=None, description="Column (lot, patient, camera) never split across the two sides."
    )
    skip_unreadable: bool = Field(default=False, description="Leave unreadable pictures out instead of refusing.")
    templates: tuple[str, ...] | None = Field(
        default=None, description="Prompt template with {} for the class; may be repeated."
    )
    names: Mapping[str, str] = Field(default_factory=dict, description="Class name -> words the model understands.")
    augment: Literal["none", "safe", "strong"] = Field(default="safe", description="safe: small shifts and scale only.")
    views: int = Field(
        default=4, ge=1, le=256, description="Fixed views of each support picture; the first is the picture itself."
    )


class AdapterSpec(_Part):
    """What is trained, where, how much of it, and the classifier that goes with it."""

    kind: Literal["sparse_delta", "low_rank", "hybrid", "bottleneck"] = Field(
        default="sparse_delta", description="Kind of adapter; hybrid: a sparse delta and a low-rank part."
    )
    density: float = Field(default=0.005, gt=0, le=1, description="Trained share of the targeted weights.")
    budget: int | None = Field(default=None, ge=1, description="Trained weight entries in all; overrides the density.")
    support_rule: Literal["random", "magnitude", "gradient", "snip", "change", "warm_up"] = Field(
        default="gradient",
        description="Which entries are trained; change: those that a dense training moves furthest; warm_up: those of "
        "the largest gradients around a warmed-up low-rank part (hybrid; RoSA).",
    )
    granularity: str = Field(
        default="entry", description="How entries lie together: entry, row, column, output, struct, or a block as 4x4."
    )
    allocation: Literal["size", "uniform", "energy"] = Field(
        default="size", description="How the budget is shared over the targets; energy: by their gradients."
    )
    tower: Literal["vision", "text", "both"] = Field(default="vision", description="Which tower is adapted.")
    layers: str = Field(
        default=AUTO,
        description="upper-half, all, last-N, a list such as 4-7 or 0,2,5; or auto: the upper half, or all layers of a "
        "vision tower where the labelled pictures pull mostly from below, or are one a class (sparse_delta, "
        "5 classes or more).",
    )
    beside: tuple[str, ...] = Field(
        default=(), description="Run or adapter folder whose entries are left to it; may be repeated."
    )
    projections: tuple[str, ...] = Field(
        default=("*",), description="Pattern of weights inside a layer; may be repeated."
    )
    placement: str | None = Field(
        default=None,
        min_length=1,
        description="Where the adapter sits, instead of tower, layers and projections: pieces TOWER:LAYERS:PROJECTIONS "
        "such as vision:6-7:mlp.*, joined by ';'; a folder of ablate; or auto: by gradients, which tower, and whether "
        "its upper half or all layers.",
    )
    head: Literal["prototypes", "text"] = Field(
        default="prototypes", description="text keeps the pure text classifier."
    )
    blend: float | None = Field(
        default=None, ge=0, le=1, description="Share of the support means; cross-validated when absent."
    )


class LowRankSpec(_Part):
    """Low-rank updates: kinds low_rank and hybrid."""

    rank: int | None = Field(default=None, ge=1, description="Rank of every weight; what the budget pays when absent.")
    lora_alpha: float | None = Field(
        default=None, gt=0, description="Scale times the rank; twice the rank when absent."
    )
    rank_stabilized: bool = Field(default=False, description="Divide alpha by the root of the rank (rsLoRA).")
    lora_dropout: float = Field(default=0.0, ge=0, lt=1, description="Share of a layer's inputs hidden in training.")
    shrinkage: float | None = Field(
        default=None, ge=0, description="Strength that closes ranks (SoRA); none if absent."
    )
    shrinkage_last: float | None = Field(
        default=None, gt=0, description="What the shrinkage rises to, stage by stage; it stays as it is if absent."
    )
    shrinkage_stages: int = Field(default=7, ge=2, le=1000, description="Stages of equal length, both ends among them.")
    shrinkage_spacing: Literal["linear", "geometric"] = Field(
        default="linear", description="Equal steps, or equal factors, from stage to stage."
    )
    low_rank_share: float = Field(default=0.5, ge=0, le=1, description="Of a hybrid's budget, where no rank is given.")
    warm_up: int = Field(
        default=64, ge=1, description="Updates of the low-rank part alone before support_rule warm_up takes gradients."
    )

    @model_validator(mode="after")
    def _rising(self) -> Self:
        """A schedule without its end would be silently without effect."""
        scheduled = (self.shrinkage_stages, self.shrinkage_spacing) != (7, "linear")
        if self.shrinkage_last is None:
            if scheduled:
                raise ValueError("low_rank.shrinkage_stages and shrinkage_spacing need low_rank.shrinkage_last")
        elif self.shrinkage is None or not self.shrinkage < self.shrinkage_last:
            raise ValueError(f"low_rank.shrinkage_last {self.shrinkage_last:g} must be above low_rank.shrinkage")
        elif self.shrinkage_spacing == "geometric" and self.shrinkage == 0:
            raise ValueError("low_rank.shrinkage_spacing geometric must start above 0")
        return self


class BottleneckSpec(_Part):
    """Inserted blocks: kind bottleneck."""

    where: Literal["attention", "mlp", "both"] = Field(default="both", description="Sublayers that blocks come after.")
    form: Literal["sequential", "parallel"] = Field(default="sequential", description="How blocks are joined.")
    bottleneck_size: int | None = Field(
        default=None,
        ge=1,
        le=65_536,
        description="Features of a block, before widening; what the budget pays if absent.",
    )
    activation: Literal["relu", "gelu", "silu"] = Field(default="relu", description="Between down and up.")
    bottleneck_scale: float = Field(default=1.0, description="What a block's output is multiplied by.")
    bottleneck_dropout: float = Field(default=0.0, ge=0, lt=1, description="Share of its features hidden in training.")
    experts: int = Field(default=1, ge=1, le=127, description="Disjoint shares of up, one drawn per forward (MoSA).")
    prune_rule: Literal["random", "magnitude", "snip", "grasp", "synflow"] = Field(
        default="snip", description="What survives at birth (SparseAdapter)."
    )
    prune_scope: Literal["global", "local"] = Field(default="global", description="One threshold, or one per matrix.")
    widen: int = Field(default=1, ge=1, le=1024, description="Times as wide at as many entries (Large-Sparse).")
    down_init: Literal["normal", "kaiming"] = Field(default="normal", description="How down is drawn; up starts at 0.")


class MovesSpec(_Part):
    """How the support moves while training; not at all by default."""

    move_every: int = Field(default=0, ge=0, description="Updates from one move of the support to the next; 0: none.")
    move_phase: int = Field(default=0, ge=0, description="Updates before the first move; every as many when 0.")
    move_share: float = Field(default=0.5, ge=0, le=1, description="Share of the entries replaced, falling to zero.")
    move_first_share: float | None = Field(default=None, ge=0, le=1, description="Share of the first move alone.")
    move_schedule: Literal["linear", "cosine"] = Field(default="linear", description="How the share falls.")
    move_random: float = Field(default=0.5, ge=0, le=1, description="Share of the entering entries drawn at random.")
    move_weakest: Literal["value", "momentum"] = Field(default="value", description="What leaves: the smallest of it.")
    move_window: int = Field(default=1, ge=1, description="Updates whose gradients say what enters.")
    move_seeding: Literal["mean", "unbiased", "zero"] = Field(
        default="unbiased", description="Optimizer state that entries chosen by gradients start from."
    )
    move_scope: Literal["target", "all"] = Field(default="target", description="Within each target, or among all.")
    move_union: bool = Field(default=False, description="Keep every entry ever drawn (SO); no budget holds then.")


class SafetySpec(_Part):
    """What keeps few labels from doing harm. Each can be switched off."""

    cross_fit: int = Field(
        default=8,
        ge=0,
        le=64,
        description="Classifiers that values learn against, each fitted without its share of the pictures; below 2 one "
        "that was fitted on all and learns along.",
    )
    agreement: float = Field(default=0.0, ge=0, description="Weight of the agreement with the frozen model; 0: off.")
    average: float = Field(default=0.0, ge=0, lt=1, description="Decay of the average of what is learned; 0: off.")
    stop_loss: float = Field(default=0.0, ge=0, description="Stop below this mean loss of one round; 0: never.")
    temper: bool = Field(
        default=True,
        description="The classifier fitted in the end is no surer than so many pictures allow: where n of n are right, "
        "the next one is with probability (n + 1) / (n + 2).",
    )
    alpha: Literal["prior", "auto"] | _Share = Field(
        default="prior",
        description="Final scale, 0 to 1, of values and classifier back to their start. prior: 1 where cross-fitted, "
        "else n / (n + 4) at n shots, or at one label a class that is cross-fitted, with n pictures that the names are "
        "worth; auto: by retraining on halves of the support set.",
    )
    head_alpha: Literal["auto"] | _Share = Field(
        default=1.0, description="Final scale, 0 to 1, of the classifier's way from the text; auto: as alpha."
    )


class TrainingSpec(_Part):
    """How the adapter is trained."""

    steps: int = Field(default=100, ge=1, le=1_000_000, description="Updates.")
    batch_size: int = Field(default=16, ge=1, le=65_536, description="Views per update.")
    learning_rate: float | None = Field(
        default=None,
        gt=0,
        le=10,
        description="Peak step size of the trained values; from 100 steps on 0.003, or 0.002 (sparse) to 0.004 "
        "(sparse, from 100 pictures on).",
    )
    head_learning_rate: float = Field(
        default=2e-3, gt=0, le=10, description="Peak step size of prototypes and temperature."
    )
    warmup_ratio: float = Field(
        default=0.1, ge=0, le=1, description="Share of the updates in which step sizes rise to their peak."
    )
    value_decay: float = Field(default=0.1, ge=0, description="L2 on the values; divided by the labels a class.")
    precision: Literal["auto", "bfloat16", "float32"] = Field(
        default="auto", description="auto: bfloat16 where it is fast."
    )
    checkpoint_every: int = Field(default=5, ge=1, description="Steps between two checkpoints.")


class AdaptSpec(_Part):
    """The whole request for one run. ``digest`` names it."""

    schema_version: Literal[1] = SCHEMA
    seed: int = Field(default=0, ge=0, le=2**63 - 1, description="Seed of every random choice.")
    backbone: BackboneSpec = BackboneSpec()
    data: DataSpec = DataSpec()
    adapter: AdapterSpec = AdapterSpec()
    low_rank: LowRankSpec = LowRankSpec()
    bottleneck: BottleneckSpec = BottleneckSpec()
    moves: MovesSpec = MovesSpec()
    safety: SafetySpec = SafetySpec()
    training: TrainingSpec = TrainingSpec()

    @model_validator(mode="after")
    def _of_its_kind(self) -> Self:
        """A setting of another kind would be silently without effect."""
        for part, kinds in _KINDS.items():
            set_anyway = [key for key, value in getattr(self, part) if value != PARTS[part].model_fields[key].default]
            if set_anyway and self.adapter.kind not in kinds:
                raise ValueError(f"{part}.{set_anyway[0]} is for kind {' or '.join(kinds)}, not {self.adapter.kind}")
        if self.adapter.support_rule == "change" and self.adapter.kind != "sparse_delta":
            raise ValueError(f"adapter.support_rule 'change' is for kind sparse_delta, not {self.adapter.kind}")
        warm = self.adapter.support_rule == "warm_up"
        if warm and self.adapter.kind != "hybrid":
            raise ValueError(f"adapter.support_rule 'warm_up' is for kind hybrid, not {self.adapter.kind}")
        if warm and (self.adapter.granularity, self.adapter.allocation) != ("entry", "size"):
            raise ValueError("adapter.support_rule 'warm_up' wants granularity 'entry' and allocation 'size'")
        if not warm and self.low_rank.warm_up != LowRankSpec().warm_up:
            raise ValueError("low_rank.warm_up is for adapter.support_rule 'warm_up'")
        if self.adapter.beside and self.adapter.kind != "sparse_delta":
            raise ValueError(f"adapter.beside is for kind sparse_delta, not {self.adapter.kind}")
        fields = AdapterSpec.model_fields
        also = [k for k in ("tower", "layers", "projections") if getattr(self.adapter, k) != fields[k].default]
        if self.adapter.placement is not None and also:
            named = " and ".join(f"adapter.{key}" for key in also)
            raise ValueError(f"adapter.placement says where the adapter sits, and so does {named}: leave one out")
        return self

    @property
    def digest(self) -> str:
        """sha256 over the canonical JSON of every field."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


_KINDS = {
    "low_rank": ("low_rank", "hybrid"),
    "bottleneck": ("bottleneck",),
    "moves": ("sparse_delta", "hybrid"),
}

PARTS: dict[str, type[_Part]] = {
    "backbone": BackboneSpec,
    "data": DataSpec,
    "adapter": AdapterSpec,
    "low_rank": LowRankSpec,
    "bottleneck": BottleneckSpec,
    "moves": MovesSpec,
    "safety": SafetySpec,
    "training": TrainingSpec,
}
