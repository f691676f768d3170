from kusabi.data.enumeration import enumerated


def test_few_names_are_all_shown():
    assert enumerated(["a", "b"]) == "a, b"
    assert enumerated([str(i) for i in range(20)], "; ").endswith("; 19")


def test_of_many_names_the_first_twenty_are_shown_then_a_count():
    shown = enumerated([f"picture {i}" for i in range(23)])
    assert shown.endswith("picture 19, and 3 more") and "picture 20" not in shown


def test_names_that_are_not_unicode_can_be_printed():
    assert enumerated(["caf\udce9"]).encode() == b"caf\\udce9"
