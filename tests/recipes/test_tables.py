from kusabi.recipes import tables

SCORES = {"accuracy": 0.5, "interval": [0.25, 0.75], "balanced_accuracy": 0.5, "n": 24}
EVALUATION = {
    "zero_shot": SCORES,
    "adapted": SCORES,
    "difference": {"value": 0.25, "interval": [0.125, 0.375], "n": 24},
    "task": {"notes": []},
}


def test_the_longest_stages_come_first_and_an_adapter_judged_once_more_has_none(capsys):
    tables.results(EVALUATION, None)
    plain = capsys.readouterr().out
    assert "memory" not in plain
    stages = [("start-up", 1.0, 5), ("peers", 0.001, 9), ("training", 3.0, 8)]
    spent = [{"stage": name, "seconds": seconds, "peak_memory_bytes": peak * 10**8} for name, seconds, peak in stages]
    tables.results({**EVALUATION, "cost": {"stages": spent}}, None)
    said = "4.0 s: training 3.0 s, start-up 1.0 s; at most 900 MB of memory\n"
    assert capsys.readouterr().out == plain + said


def test_groups_that_intervals_count_are_noted_where_pictures_share_some(capsys):
    for groups, said in ((6, "intervals count 6 groups"), (24, None)):
        task = {"notes": [], "query_groups": groups, "query_pictures": 24, "intervals_by": "groups"}
        tables.results({**EVALUATION, "task": task}, None)
        out = capsys.readouterr().out
        assert (said in out) if said else ("groups" not in out)
