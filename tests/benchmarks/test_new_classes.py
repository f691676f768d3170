from benchmarks.new_classes import ALL, FIELDS, HEADS, SHOTS, WAYS, table


def test_ways_are_ranked_by_the_harmonic_mean_over_all_cells():
    def line(task, shots, head):
        worth = {"adapted": 0.25, "half": 0.375, "frozen": 0.5, "both": 0.75 if task == "fashion" else 0.5}
        return {
            "task": task,
            "shots": shots,
            "head": head,
            "ways": {way: dict.fromkeys(FIELDS, worth[way]) for way in WAYS},
        }

    rows = table([line(task, n, head) for task in ALL for n in SHOTS for head in HEADS]).split("\n")
    assert [row.split(" | ")[1] for row in rows[2::2]] == ["both", "frozen", "half", "adapted"]
    assert rows[2].split(" | ") == ["| prototypes", "both", *["55.0"] * 4, "75.0", "75.0", *["50.0"] * 7, "50.0 |"]
