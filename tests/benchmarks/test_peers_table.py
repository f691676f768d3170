import re

from benchmarks.peers import PEERS
from benchmarks.peers.settings import SETTINGS

ISSUE = (
    "zero_shot", "class_mean", "linear_probe", "lp_plus_plus", "tip_adapter", "tip_adapter_f", "clip_adapter",
    "task_residual", "coop", "kgcoop", "clip_lora", "lora", "shira", "super_tuning", "layer_norm", "prolip",
    "two_stage", "clip_svd", "full", "wise_ft",
)  # fmt: skip


def test_every_method_of_the_benchmark_is_there_and_names_its_paper():
    assert set(ISSUE) <= PEERS.keys()
    assert all(name == peer.name and re.fullmatch(r"\d{4}\.\d{5}", peer.paper) for name, peer in PEERS.items())
    assert len({peer.title for peer in PEERS.values()}) == len(PEERS)
    assert {name.partition("+")[0] for name, peer in PEERS.items() if peer.needs_peft} == {
        "clip_lora", "lora", "shira", "super_tuning"
    }  # fmt: skip


def test_every_method_that_trains_inside_the_backbone_also_comes_with_prototypes():
    inside = {"layer_norm", "bitfit", "clip_svd", "full", "wise_ft", "clip_lora", "lora", "shira", "super_tuning"}
    assert {name.partition("+")[0] for name in PEERS if name.endswith("+prototypes")} == inside


def test_every_setting_says_where_it_comes_from():
    assert all(setting.rate > 0 and setting.decay >= 0 for setting in SETTINGS.values())
    assert all(re.search("published|chosen|ours", setting.source) for setting in SETTINGS.values())
