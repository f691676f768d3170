"""The tables of the page: rows of ready text, label first, taken from an evaluation as it is."""

from collections.abc import Mapping
from typing import Any

from kusabi.evaluation.pool import WAYS
from kusabi.report import numbers
from kusabi.report.words import Words

Row = tuple[str, ...]

WITHOUT_RULE = ("low_rank", "bottleneck")
"""Kinds of adapter that no rule chooses single weights of the model for."""


def summary(evaluation: Mapping[str, Any], words: Words) -> list[Row]:
    """What the task was: classes, pictures on both sides, seeds, model."""
    task, n = evaluation["task"], evaluation["difference"]["n"]
    apart = any(None in _listed(picture["adapted"]) for picture in evaluation.get("pictures", []))
    support = task.get("support_pictures")
    learned = words(
        "facts.support_value",
        pictures=numbers.ABSENT if support is None else words.amount("pictures", support),
        shots=numbers.count(words, task.get("shots")),
    )
    crossed = str(task.get("held_out")).startswith("cross-validation")
    judged = words(
        "facts.query_folds" if crossed else "facts.query_seeds" if apart else "facts.query_value",
        pictures=words.amount("pictures", n),
        held_out=words.name("held_out", task.get("held_out")),
    )
    return [
        (words("facts.classes"), numbers.count(words, len(task["classes"]))),
        (words("facts.support"), learned),
        (words("facts.query"), judged),
        (
            words("facts.seeds"),
            words("facts.seeds_value", n=evaluation["difference"]["seeds"], numbers=_seeds(evaluation, words)),
        ),
        (words("facts.model"), str(evaluation["backbone"].get("source") or numbers.ABSENT)),
    ]


def metrics(evaluation: Mapping[str, Any], words: Words) -> list[tuple[str, str, list[str]]]:
    """Label, remark and one cell for each of the four ways."""
    scores = [evaluation[way] for way in WAYS]
    low = words("metric.low_is_good")
    rate = words("number.percent", value=f"{scores[0]['recall_at_false_alarm']['rate'] * 100:g}")
    rows: list[tuple[str, str, list[str]]] = [
        (words("metric.accuracy"), "", [numbers.percent(words, one["accuracy"]) for one in scores]),
        (words("metric.interval"), "", [numbers.accuracy_range(words, one["interval"]) for one in scores]),
    ]
    rows += [
        (words(f"metric.{key}"), "", [numbers.percent(words, one[key]) for one in scores])
        for key in ("balanced_accuracy", "macro_f1")
    ]
    recalls = [numbers.percent(words, one["recall_at_false_alarm"]["recall"]) for one in scores]
    rows.append((words("metric.recall", rate=rate), "", recalls))
    rows.append((words("metric.auroc"), "", [numbers.decimals(words, one["auroc"]) for one in scores]))
    rows += [
        (words(f"metric.{key}"), low, [numbers.decimals(words, one.get(key)) for one in scores])
        for key in ("brier", "nll", "ece")
    ]
    return rows


def paired(evaluation: Mapping[str, Any], words: Words) -> list[Row]:
    """Label, then one cell for each comparison: with zero-shot and with both peers."""
    sides = [evaluation["difference"], *(evaluation["against_peers"][peer] for peer in ("class_mean", "linear_probe"))]
    written = {
        "value": lambda one: numbers.signed(one["value"]),
        "interval": lambda one: numbers.points_range(words, one["interval"]),
        "gained": lambda one: numbers.count(words, one["gained"]),
        "lost": lambda one: numbers.count(words, one["lost"]),
        "p": lambda one: numbers.probability(words, one["mcnemar_p"]),
        "effect": lambda one: f"{one['minimum_detectable_effect'] * 100:.1f}",
    }
    return [(words(f"paired.{key}"), *(write(one) for one in sides)) for key, write in written.items()]


def lead(evaluation: Mapping[str, Any], words: Words) -> str:
    """What an adapter of this kind does to the model; of a kind without words, what is true of all."""
    of_kind = f"trained.lead_{evaluation['adapter'].get('kind')}"
    return words(of_kind if of_kind in words.texts else "trained.lead")


def trained(evaluation: Mapping[str, Any], words: Words) -> list[Row]:
    """How much was trained, and, where the adapter has sparse entries to choose, how these were chosen."""
    adapter, whole = evaluation["adapter"], evaluation["backbone"].get("parameters")
    entries = adapter.get("entries")
    share = entries / whole if entries is not None and whole else None
    chosen = [(words("trained.rule"), words.name("rule", adapter.get("support_rule")))]
    return [
        (words("trained.entries"), numbers.count(words, entries)),
        (words("trained.density"), numbers.small_percent(words, adapter.get("density"))),
        (words("trained.whole"), numbers.small_percent(words, share)),
        (words("trained.bytes"), numbers.volume(words, adapter.get("bytes"))),
        (words("trained.head"), numbers.count(words, adapter.get("head_entries"))),
        (words("trained.head_kind"), words.name("head", adapter.get("head"))),
        (words("trained.blend"), numbers.percent(words, adapter.get("blend"))),
        (words("trained.kind"), words.name("kind", adapter.get("kind"))),
        *([] if adapter.get("kind") in WITHOUT_RULE else chosen),
    ]


def projections(evaluation: Mapping[str, Any], words: Words) -> list[Row]:
    """Tower and kind of weight, layers, trained entries, entries in all, trained share; in the order of the targets."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for target in evaluation["adapter"].get("targets", []):
        groups.setdefault((target["tower"], target["projection"]), []).append(target)
    rows = []
    for (tower, projection), targets in groups.items():
        entries, size = (sum(target[key] for target in targets) for key in ("entries", "size"))
        name = words("number.colon", name=words.name("trained", tower), value=projection)
        layers = numbers.count(words, len({target["layer"] for target in targets}))
        cells = (
            numbers.count(words, entries),
            numbers.count(words, size),
            numbers.small_percent(words, entries / size),
        )
        rows.append((name, layers, *cells))
    return rows


def cost(evaluation: Mapping[str, Any], words: Words) -> list[Row]:
    """Seconds, memory, speed and size."""
    spent = evaluation["cost"]
    speeds = spent.get("images_per_second") or {}
    return [
        (words("training.training_seconds"), numbers.duration(words, spent.get("training_seconds"))),
        (words("training.total_seconds"), numbers.duration(words, spent.get("total_seconds"))),
        (words("training.peak_memory"), numbers.volume(words, spent.get("peak_memory_bytes"))),
        (words("training.speed_zero_shot"), numbers.speed(words, speeds.get("zero_shot"))),
        (words("training.speed_adapted"), numbers.speed(words, speeds.get("adapted"))),
        (words("training.bytes"), numbers.volume(words, evaluation["adapter"].get("bytes"))),
    ]


def stages(evaluation: Mapping[str, Any], words: Words) -> list[Row]:
    """Stage, seconds, share of all stages, highest memory until its end; no row where no profile was asked for."""
    spent = evaluation["cost"].get("stages", [])
    whole = sum(one["seconds"] for one in spent) or 1.0
    return [
        (
            words.name("stage", one["stage"]),
            numbers.duration(words, one["seconds"]),
            numbers.percent(words, one["seconds"] / whole),
            numbers.volume(words, one["peak_memory_bytes"]),
        )
        for one in spent
    ]


def settings(evaluation: Mapping[str, Any], words: Words) -> list[Row]:
    """How it was trained."""
    values = {**evaluation["training"], "shots": evaluation["task"].get("shots")}
    keys = ["shots", "steps", "learning_rate", "batch_size", "views", "augment", "precision", "threads", "device"]
    rows = [(words(f"setting.{key}"), _plain(values.get(key))) for key in keys]
    return [*rows[:1], (words("setting.seeds"), _seeds(evaluation, words)), *rows[1:]]


def versions(evaluation: Mapping[str, Any], words: Words) -> list[Row]:
    """Programs and machine, as recorded."""
    return [(words.name("version", key), _plain(value)) for key, value in evaluation.get("environment", {}).items()]


def digests(evaluation: Mapping[str, Any], words: Words) -> list[Row]:
    """What the data, the model and each adapter are, to the bit."""
    adapter = evaluation["adapter"]
    rows = [
        (words("repeat.data"), _plain(evaluation["task"].get("data_digest"))),
        (words("repeat.backbone"), _plain(evaluation["backbone"].get("digest"))),
    ]
    if "digests" not in adapter:
        return [*rows, (words("repeat.adapter"), _plain(adapter.get("digest")))]
    pairs = zip(evaluation["task"]["seeds"], adapter["digests"], strict=True)
    return [*rows, *((words("repeat.adapter_seed", seed=seed), _plain(digest)) for seed, digest in pairs)]


def card(evaluation: Mapping[str, Any], words: Words) -> list[Row]:
    """Where the model is from and what may be done with it."""
    backbone = evaluation["backbone"]
    layers, preprocessing = backbone.get("layers") or {}, backbone.get("preprocessing") or {}
    towers = words("card.layers_value", vision=_plain(layers.get("vision")), text=_plain(layers.get("text")))
    size, fit = preprocessing.get("size"), words.name("fit", preprocessing.get("fit"))
    pixels = words("number.pixels", value=_plain(size))
    rows = [(words(f"card.{key}"), _plain(backbone.get(key))) for key in ("source", "licence", "family", "revision")]
    return [
        *rows,
        (words("card.parameters"), numbers.count(words, backbone.get("parameters"))),
        (words("card.layers"), towers if layers else numbers.ABSENT),
        (words("card.input"), words("number.pair", first=pixels, second=fit) if preprocessing else numbers.ABSENT),
    ]


def commands(evaluation: Mapping[str, Any]) -> list[str]:
    """The command of each run, where known."""
    return [command for command in evaluation.get("commands", [evaluation.get("command")]) if command]


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _seeds(evaluation: Mapping[str, Any], words: Words) -> str:
    task = evaluation["task"]
    return words("number.joint").join(str(seed) for seed in task.get("seeds") or [task.get("seed", numbers.ABSENT)])


def _plain(value: Any) -> str:
    return numbers.ABSENT if value is None else str(value)
