import json

import pytest
import torch

from kusabi.errors import CheckpointError
from kusabi.recipes.training_log import append_record, load_checkpoint, read_records, save_checkpoint, trim_metrics
from kusabi.training.fit import Record


def test_checkpoints_come_back_and_damage_is_told(tmp_path):
    assert load_checkpoint(tmp_path) is None
    save_checkpoint(tmp_path, {"step": torch.tensor(3), "values": torch.arange(4.0)})
    assert load_checkpoint(tmp_path)["values"].tolist() == [0, 1, 2, 3]
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(CheckpointError, match="delete it"):
        load_checkpoint(tmp_path)


def test_records_after_the_checkpoint_and_torn_lines_are_dropped(tmp_path):
    trim_metrics(tmp_path, 0)
    for step in range(1, 6):
        append_record(tmp_path, Record(step, 1.0, 0.5, 1e-3))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')
    trim_metrics(tmp_path, 4)
    assert [record["step"] for record in read_records(tmp_path)] == [1, 2, 3, 4]
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])["loss"] == 1.0
