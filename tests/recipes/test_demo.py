import pytest

from kusabi.data.source import read_dataset
from kusabi.errors import RunError
from kusabi.recipes.demo import JUDGED, LEARNED, demo, textile_folder


def test_the_demo_lays_its_pictures_out_as_anybodys_folder(tmp_path):
    folder = textile_folder(tmp_path / "textile")
    dataset = read_dataset(folder)
    assert dataset.classes == ("global defect", "local defect", "nominal")
    assert len(dataset.train) == 3 * len(range(1000)[LEARNED]) and len(dataset.test) == 3 * len(range(1000)[JUDGED])


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path):
    (tmp_path / "spec.toml").write_text("mine")
    with pytest.raises(RunError, match=r"something else than a demo is there \(spec\.toml\)"):
        demo(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["spec.toml"]


def test_support_and_query_come_from_different_index_blocks():
    assert not set(range(1000)[LEARNED]) & set(range(1000)[JUDGED])


def test_a_second_call_leaves_the_folder_alone(tmp_path):
    folder = textile_folder(tmp_path / "textile")
    (folder / "mark").write_text("")
    assert (textile_folder(folder) / "mark").exists()
