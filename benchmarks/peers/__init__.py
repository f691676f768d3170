"""Methods that anyone would try instead, re-implemented or from stock libraries, behind one interface.

``PEERS[name].run(material)`` gives the probabilities of the query pictures and what they cost. Everybody gets the same
backbone, views, batches and steps (``lp_plus_plus`` and ``prolip``, full batches: their authors' rounds), and fixed
settings (``settings.py``); nothing is ever chosen on query pictures.
"""

from collections.abc import Mapping
from functools import partial

from benchmarks.peers import (
    clip_adapter,
    clip_svd,
    frozen_features,
    full_fine_tuning,
    lp_plus_plus,
    prolip,
    prompt_learning,
    small_parts,
    stock_peft,
    task_residual,
    tip_adapter,
    two_stage,
)  # fmt: skip
from benchmarks.peers.peer import Peer

_FROZEN = (
    Peer("zero_shot", "zero-shot", "2103.00020", frozen_features.zero_shot),
    Peer("class_mean", "class mean", "1703.05175", frozen_features.class_mean),
    Peer("linear_probe", "linear probe", "2103.00020", frozen_features.linear_probe),
    Peer("lp_plus_plus", "LP++", "2404.02285", lp_plus_plus.lp_plus_plus),
    Peer("tip_adapter", "Tip-Adapter", "2111.03930", tip_adapter.tip_adapter),
    Peer("tip_adapter_f", "Tip-Adapter-F", "2111.03930", tip_adapter.tip_adapter_f),
    Peer("clip_adapter", "CLIP-Adapter", "2110.04544", clip_adapter.clip_adapter),
    Peer("task_residual", "TaskRes", "2211.10277", task_residual.task_residual),
    Peer("prolip", "ProLIP", "2410.05270", prolip.prolip),
    Peer("coop", "CoOp", "2109.01134", prompt_learning.coop),
    Peer("kgcoop", "KgCoOp", "2303.13283", prompt_learning.kgcoop),
    Peer("two_stage", "2SFS", "2503.11609", two_stage.two_stage),
)

_IN_BACKBONE = (
    Peer("layer_norm", "LayerNorm tuning", "1607.06450", small_parts.layer_norm),
    Peer("bitfit", "BitFit", "2106.10199", small_parts.bitfit),
    Peer("clip_svd", "CLIP-SVD", "2509.03740", clip_svd.clip_svd),
    Peer("full", "full fine-tuning", "2103.00020", full_fine_tuning.full_fine_tuning),
    Peer("wise_ft", "full fine-tuning, WiSE-FT", "2109.01903", full_fine_tuning.wise_ft),
    Peer("clip_lora", "CLIP-LoRA (PEFT)", "2405.18541", stock_peft.clip_lora, needs_peft=True),
    Peer("lora", "LoRA, all linears (PEFT)", "2106.09685", stock_peft.lora, needs_peft=True),
    Peer("shira", "SHiRA (PEFT)", "2406.13175", stock_peft.shira, needs_peft=True),
    Peer("super_tuning", "Super-Tuning (PEFT)", "2607.09287", stock_peft.super_tuning, needs_peft=True),
)

_WITH_PROTOTYPES = tuple(
    Peer(
        f"{peer.name}+prototypes", f"{peer.title}, with prototypes", peer.paper, partial(peer.run, head="prototypes"),
        peer.needs_peft,
    )
    for peer in _IN_BACKBONE
)  # fmt: skip

PEERS: Mapping[str, Peer] = {peer.name: peer for peer in (*_FROZEN, *_IN_BACKBONE, *_WITH_PROTOTYPES)}
