import json
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kusabi.recipes import profile as module
from kusabi.recipes.profile import Profile
from kusabi.recipes.watch import silent

NAMES = ("pictures read", "training", "fold", "a fold 1: b")
EVENT = st.tuples(st.sampled_from(NAMES), st.sampled_from((None, 1, 2, 13)), st.integers(0, 5000))


class Clock:
    """Stands still until it is moved; thousandths of a second."""

    def __init__(self):
        self.now = 7_000

    def __call__(self):
        return self.now / 1000


@given(st.lists(EVENT, max_size=30))
def test_all_time_is_counted_once_and_under_the_stage_that_ended(events):
    clock, told, owed = Clock(), [], {}
    profile = Profile(lambda *of, **facts: told.append((*of, facts)), "cpu", clock=clock)
    for number, (name, fold, spent) in enumerate(events):
        clock.now += spent
        owed[name] = owed.get(name, 0) + spent
        profile(name if fold is None else f"fold {fold}: {name}", number, 30, loss=0.5)
    clock.now += 99  # after the last event: of no stage yet
    stages = profile.stages()
    assert [one["stage"] for one in stages] == list(owed), "in order of first appearance"
    assert [one["seconds"] for one in stages] == pytest.approx([spent / 1000 for spent in owed.values()])
    assert sum(one["seconds"] for one in stages) == pytest.approx(sum(spent for *_, spent in events) / 1000)
    shown = [name if fold is None else f"fold {fold}: {name}" for name, fold, _ in events]
    assert told == [(name, number, 30, {"loss": 0.5}) for number, name in enumerate(shown)]


def test_memory_is_that_of_the_last_time_a_stage_ended(monkeypatch):
    peaks = iter([10, 20, 30])
    monkeypatch.setattr(module, "peak_memory", lambda device: next(peaks))
    profile = Profile(silent, "cpu")
    for stage in ("frozen layers", "training", "frozen layers"):
        profile(stage, 1, 1)
    assert {one["stage"]: one["peak_memory_bytes"] for one in profile.stages()} == {"frozen layers": 30, "training": 20}


def test_the_past_of_the_process_is_start_up_where_the_system_tells_it(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "process_age", lambda: 4.5)
    assert Profile(silent, "cpu", clock=clock).stages() == []
    profile = Profile(silent, "cpu", since_start=True, clock=clock)
    clock.now += 250
    profile("pictures read", 1, 1)
    assert [(one["stage"], one["seconds"]) for one in profile.stages()] == [("start-up", 4.5), ("pictures read", 0.25)]
    monkeypatch.setattr(module, "process_age", lambda: None)
    assert Profile(silent, "cpu", since_start=True).stages() == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells when a process began")
def test_a_process_tells_its_age_and_the_stage_that_took_its_memory():
    code = """if True:
        import json, time
        from kusabi.recipes.profile import Profile, peak_memory
        from kusabi.recipes.watch import silent
        time.sleep(0.5)
        profile = Profile(silent, "cpu", since_start=True)
        profile("small", 1, 1)
        taken = b"x" * (peak_memory("cpu") + 50_000_000)
        profile("large", 1, 1)
        print(json.dumps(profile.stages()))
    """
    began = time.perf_counter()
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    start_up, small, large = json.loads(said)
    # The system counts beginnings in hundredths of a second.
    assert start_up["stage"] == "start-up" and 0.49 <= start_up["seconds"] <= time.perf_counter() - began + 0.02
    assert small["peak_memory_bytes"] - start_up["peak_memory_bytes"] < 40_000_000
    assert large["peak_memory_bytes"] - small["peak_memory_bytes"] > 40_000_000


def test_a_gpu_finishes_its_work_before_the_clock_is_read(monkeypatch):
    clock, waited = Clock(), []

    def synchronize(device):
        waited.append(device)
        clock.now += 3_000

    monkeypatch.setattr(module.torch.cuda, "synchronize", synchronize)
    monkeypatch.setattr(module, "peak_memory", lambda device: 5)
    monkeypatch.setattr(module, "process_age", lambda: 1.0)
    profile = Profile(silent, "cuda:1", since_start=True, clock=clock)
    assert waited == [], "before the first event the device may be unknown"
    profile("frozen layers", 1, 1)
    assert waited == ["cuda:1"]
    assert profile.stages() == [
        {"stage": "start-up", "seconds": 1.0, "peak_memory_bytes": 0},
        {"stage": "frozen layers", "seconds": 3.0, "peak_memory_bytes": 5},
    ]
