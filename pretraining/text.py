"""The text tower: a small transformer that repeats the sentence encoder's embeddings, English and Japanese."""

import json
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from pretraining.checkpoint import resume, save
from pretraining.corpus import Corpus
from pretraining.precision import attention, autocast
from pretraining.teacher import embed

TOKENS, WIDTH, LAYERS, LONGEST = 16000, 256, 4, 64
EMBEDDING = 384
BATCH, POOL = 512, 16


def build_tokenizer(texts: list[str], folder: Path):
    """Train byte-level BPE: any string of any language has tokens; saved as a plain Hugging Face tokenizer."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=TOKENS, special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        unk_token="[UNK]",
        model_max_length=LONGEST,
        model_input_names=["input_ids", "attention_mask"],
    )
    fast.save_pretrained(folder)
    return fast


def text_config():
    """The configuration of the exported text tower."""
    from transformers import BertConfig

    return BertConfig(
        vocab_size=TOKENS,
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=WIDTH // 64,
        intermediate_size=4 * WIDTH,
        max_position_embeddings=LONGEST,
        type_vocab_size=1,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        pad_token_id=0,
    )


class TextStudent(nn.Module):
    """The text tower with the projection that the exported folder stores."""

    def __init__(self):
        from transformers import BertModel

        super().__init__()
        self.tower = BertModel(text_config())
        self.tower.set_attn_implementation(attention("cuda" if torch.cuda.is_available() else "cpu"))
        self.head = nn.Linear(WIDTH, EMBEDDING, bias=False)

    def forward(self, tokens: dict[str, Tensor]) -> Tensor:
        """Embed tokens into ``(batch, 384)``, not yet of unit length."""
        return self.head(self.tower(**tokens).pooler_output)


def train_text(corpus: Corpus, cache: Path, folder: Path, steps: int, rate: float = 1.5e-3, seed: int = 0):
    """Distil the teacher into a fresh student, or go on from the checkpoint in ``folder``; returns both parts.

    Args:
        corpus: Texts and what they should become.
        cache: Where teacher embeddings are kept.
        folder: Takes the tokenizer, the checkpoint and the finished ``text.safetensors``.
        steps: Updates in all, of 512 texts each.
        rate: Peak learning rate.
        seed: Of the start and of every batch.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = build_tokenizer(corpus.texts, folder)
    torch.manual_seed(seed)
    student = TextStudent().to(device)
    _start_from_teacher(student, tokenizer, cache)
    optimizer = torch.optim.AdamW(student.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    ids = [row[:LONGEST] for row in tokenizer(corpus.texts)["input_ids"]]
    lengths = np.array([len(row) for row in ids])
    step, spent, _ = resume(folder / "text-checkpoint.safetensors", student, optimizer)
    started = saved = time.monotonic()
    while step < steps:
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, (step + 1) / 200) * (1 - step / steps)
        rows = _rows(lengths, seed, step)
        loss, cosine = _loss(student, _pad([ids[i] for i in rows], device), corpus.targets[rows].to(device), device)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        step, now = step + 1, time.monotonic()
        if step % 50 == 0 or step == steps:
            record = {"step": step, "seconds": round(spent + now - started), "texts": len(corpus.texts)}
            with (folder / "text-log.jsonl").open("a") as log:
                log.write(json.dumps(record | {"loss": round(loss.item(), 4), "cosine": cosine}) + "\n")
        if now - saved > 120 or step == steps:
            save(folder / "text-checkpoint.safetensors", student, optimizer, step, spent + now - started)
            saved = now
    save_file({n: t.contiguous() for n, t in student.state_dict().items()}, folder / "text.safetensors")
    return tokenizer, student


def _rows(lengths: np.ndarray, seed: int, step: int) -> np.ndarray:
    """The texts of one step: of ``POOL`` batches drawn together, one of similar lengths, which saves the padding."""
    draw = np.random.default_rng([seed, step // POOL])
    drawn = draw.integers(len(lengths), size=POOL * BATCH)
    batches = drawn[np.argsort(lengths[drawn], kind="stable")].reshape(POOL, BATCH)
    return batches[draw.permutation(POOL)[step % POOL]]


def _loss(student: TextStudent, tokens: dict[str, Tensor], targets: Tensor, device: str):
    with autocast(device):
        raw = student(tokens).float()
    embeddings = F.normalize(raw, dim=-1)
    cosine = (embeddings * targets).sum(-1).mean()
    own = F.log_softmax(embeddings @ targets.T / 0.05, dim=-1)
    wanted = F.softmax(targets @ targets.T / 0.05, dim=-1)
    relations = F.kl_div(own, wanted, reduction="batchmean")
    return 1 - cosine + relations, round(cosine.item(), 4)


def _pad(rows: list[list[int]], device: str) -> dict[str, Tensor]:
    longest = max(map(len, rows))
    ids = torch.tensor([r + [0] * (longest - len(r)) for r in rows], device=device)
    return {"input_ids": ids, "attention_mask": (ids != 0).long()}


def _start_from_teacher(student: TextStudent, tokenizer, cache: Path) -> None:
    """Begin each token's embedding at the teacher's opinion of its text, reduced to the tower's width."""
    vocabulary = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    spelled = [tokenizer.convert_tokens_to_string([t]).strip() or "." for t in vocabulary]
    bank = embed(spelled, cache)
    centred = bank - bank.mean(0)
    _, _, axes = torch.linalg.svd(centred[:4000], full_matrices=False)
    start = centred @ axes[:WIDTH].T
    with torch.no_grad():
        student.tower.embeddings.word_embeddings.weight[: len(start)] = start / start.std() * 0.05


def load_text(folder: Path) -> TextStudent:
    """Read a finished student back."""
    student = TextStudent()
    student.load_state_dict(load_file(folder / "text.safetensors"))
    return student.eval()
