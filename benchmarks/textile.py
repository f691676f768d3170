"""Simulated fabric with defects (Megahed et al. 2025), from the package ``conformal-clip-data``; balanced."""

from pathlib import Path

from benchmarks.pool import Pool

LEARNED, JUDGED = slice(0, 250), slice(250, 500)  # index blocks of every class: apart, as lots would be


def textile(cache: Path) -> tuple[Pool, Pool]:
    """Pictures to learn from and pictures that judge."""
    import conformal_clip_data as package

    folders = {
        "nominal": package.nominal_dir(), "global defect": package.global_dir(), "local defect": package.local_dir()
    }  # fmt: skip
    ordered = {
        name: sorted(Path(folder).glob("*.jpg"), key=lambda path: int(path.stem.rpartition("_")[2]))
        for name, folder in folders.items()
    }
    learned = {name: paths[LEARNED] for name, paths in ordered.items()}
    return learned, {name: paths[JUDGED] for name, paths in ordered.items()}
