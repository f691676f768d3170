from kusabi.errors import listed


def test_a_long_list_names_twenty_and_counts_the_rest():
    assert listed([str(i) for i in range(23)]).endswith("18, 19 and 3 more")
    assert listed(["a", "b"]) == "a, b"
