from kusabi.data.picture_files import folders_in, pictures_below, pictures_in


def test_the_order_is_that_of_the_names_and_hidden_things_are_left_out(folder):
    root = folder("b/2.png", "b/1.png", "a/3.png", ".git/4.png", "__MACOSX/5.png", "6.png")
    (root / "b" / "0.txt").write_text("x")
    (root / "b" / "README").write_text("x")
    assert [path.name for path in folders_in(root)] == ["a", "b"]
    assert [path.name for path in pictures_in(root)[0]] == ["6.png"]
    pictures, others = pictures_below(root)
    assert [path.relative_to(root).as_posix() for path in pictures] == ["6.png", "a/3.png", "b/1.png", "b/2.png"]
    assert others == {".txt": 1, "README": 1}


def test_a_loop_of_links_ends(folder):
    root = folder("a/1.png")
    (root / "a" / "up").symlink_to(root, target_is_directory=True)
    assert [path.name for path in pictures_below(root)[0]] == ["1.png"]
