from pathlib import Path

import pytest
import torch

peft = pytest.importorskip("peft", minversion="0.21", reason="peft >= 0.21 is not installed")
pytest.importorskip("accelerate", reason="accelerate is not installed, and Trainer needs it")

from kusabi.adapters.peft_format import KusabiConfig  # noqa: E402
from kusabi.adapters.peft_import import import_peft  # noqa: E402
from kusabi.errors import CheckpointError  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft 0.21 asks 5.23
SIDE, STEPS = 16, 4


def classifier():
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 2}
    return ViTForImageClassification(ViTConfig(image_size=SIDE, patch_size=8, num_labels=2, **sizes))


def wrapped():
    return peft.get_peft_model(
        classifier(), KusabiConfig(target_modules=["q_proj", "fc1"], budget=60, modules_to_save=["classifier"])
    )


def pictures():
    drawn = torch.Generator().manual_seed(1)
    return [{"pixel_values": torch.randn(3, SIDE, SIDE, generator=drawn), "labels": i % 2} for i in range(8)]


def train(model, folder, steps, resume=None):
    from transformers import Trainer, TrainingArguments

    arguments = TrainingArguments(
        output_dir=str(folder), max_steps=steps, per_device_train_batch_size=2, learning_rate=0.05, save_steps=2,
        lr_scheduler_type="constant", report_to=[], use_cpu=True, disable_tqdm=True, logging_strategy="no", seed=3,
    )  # fmt: skip
    Trainer(model=model, args=arguments, train_dataset=pictures()).train(resume_from_checkpoint=resume)
    return {key: tensor.clone() for key, tensor in peft.get_peft_model_state_dict(model).items()}


def test_a_training_that_is_resumed_ends_where_it_would_have_ended(tmp_path):
    model = wrapped()
    first = {key: tensor.clone() for key, tensor in peft.get_peft_model_state_dict(model).items()}
    whole = train(model, tmp_path / "whole", STEPS)
    train(wrapped(), tmp_path / "halves", STEPS // 2)
    again = wrapped()
    resumed = train(again, tmp_path / "halves", STEPS, resume=str(tmp_path / "halves" / f"checkpoint-{STEPS // 2}"))
    assert whole.keys() == resumed.keys() and all(torch.equal(whole[key], resumed[key]) for key in whole)
    moved = {key for key in whole if not torch.equal(whole[key], first[key])}
    assert moved == {key for key in whole if "indices" not in key}, "values and the classifier learn; entries stay"
    kinds = {tensor.dtype for key, tensor in whole.items() if "indices" in key}
    assert kinds == {torch.int32} and any("classifier" in key for key in moved)

    folder = Path(tmp_path / "whole" / f"checkpoint-{STEPS}")
    shown = pictures()[0]["pixel_values"][None]
    model.eval()
    loaded = peft.PeftModel.from_pretrained(classifier(), folder).eval()
    native = classifier().eval()
    native.load_adapter(folder)
    wanted = model(pixel_values=shown).logits
    assert torch.equal(loaded(pixel_values=shown).logits, wanted)
    assert torch.equal(native(pixel_values=shown).logits, wanted)
    frozen = dict(classifier().named_parameters())
    learned = dict(model.get_base_model().named_parameters())
    for name, tensor in frozen.items():
        if not name.startswith("classifier"):
            place = name if name in learned else f"{name.rpartition('.')[0]}.base_layer.{name.rpartition('.')[2]}"
            assert torch.equal(learned[place], tensor), name
    with pytest.raises(CheckpointError, match="modules_to_save = "):  # the classifier would be lost
        import_peft(folder, classifier())
