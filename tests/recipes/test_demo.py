from kusabi.data.source import read_dataset
from kusabi.recipes.demo import JUDGED, LEARNED, textile_folder


def test_the_demo_lays_its_pictures_out_as_anybodys_folder(tmp_path):
    folder = textile_folder(tmp_path / "textile")
    dataset = read_dataset(folder)
    assert dataset.classes == ("global defect", "local defect", "nominal")
    assert len(dataset.train) == 3 * len(range(1000)[LEARNED]) and len(dataset.test) == 3 * len(range(1000)[JUDGED])


def test_support_and_query_come_from_different_index_blocks():
    assert not set(range(1000)[LEARNED]) & set(range(1000)[JUDGED])


def test_a_second_call_leaves_the_folder_alone(tmp_path):
    folder = textile_folder(tmp_path / "textile")
    (folder / "mark").write_text("")
    assert (textile_folder(folder) / "mark").exists()
