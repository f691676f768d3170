"""Capital letters in typefaces never seen: 26 classes, drawn from the fonts of Debian's ``fonts-*`` packages.

Packages are dealt out in turn to the side that is learned from and the side that judges, so that no typeface, nor any
other face of its family, is on both.
"""

import shutil
import string
import subprocess
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from benchmarks.pool import Pool

PACKAGES = tuple(
    f"fonts-{name}"
    for name in [
        "adf-accanthis",
        "adf-baskervald",
        "adf-berenis",
        "adf-gillius",
        "adf-ikarius",
        "adf-irianis",
        "adf-libris",
        "adf-mekanus",
        "adf-romande",
        "adf-switzera",
        "adf-tribun",
        "adf-universalis",
        "adf-verana",
        "allerta",
        "anonymous-pro",
        "arapey",
        "averia-sans-gwf",
        "averia-serif-gwf",
        "b612",
        "bebas-neue",
        "cabin",
        "cabinsketch",
        "cantarell",
        "comfortaa",
        "comic-neue",
        "courier-prime",
        "crosextra-caladea",
        "crosextra-carlito",
        "dancingscript",
        "dejavu-core",
        "dosis",
        "ebgaramond",
        "fanwood",
        "fantasque-sans",
        "firacode",
        "freefont-ttf",
        "go",
        "goudybookletter",
        "hack-ttf",
        "humor-sans",
        "inconsolata",
        "inter",
        "jetbrains-mono",
        "junction",
        "jura",
        "karla",
        "kaushanscript",
        "kristi",
        "lato",
        "league-mono",
        "league-spartan",
        "leckerli-one",
        "liberation2",
        "linuxlibertine",
        "lobster",
        "lobstertwo",
        "manrope",
        "monofur",
        "mononoki",
        "ocr-a",
        "oldstandard",
        "open-sans",
        "opendin",
        "opendyslexic",
        "oxygen",
        "paratype",
        "play",
        "prociono",
        "quattrocento",
        "quicksand",
        "roboto-slab",
        "rufscript",
        "sil-andika",
        "sil-charis",
        "sil-galatia",
        "sil-gentiumplus",
        "sora",
        "stix",
        "texgyre",
        "tuffy",
        "ubuntu-title",
        "urw-base35",
        "vollkorn",
        "yanone-kaffeesatz",
        "yrsa-rasa",
    ]
)
FACES = 3  # of one package at most
SIDE, SIZE = 64, 44  # pixels of a picture, and of a line of type in it


def letters(cache: Path) -> tuple[Pool, Pool]:
    """Pictures to learn from and pictures that judge."""
    folder = _fetched(cache)
    sides: tuple[list[Path], list[Path]] = ([], [])
    for number, package in enumerate(PACKAGES):
        sides[number % 2].extend(_faces(folder / package))
    learned, judged = (
        {f"letter {c}": [_drawn(face, c) for face in faces] for c in string.ascii_uppercase} for faces in sides
    )
    return learned, judged


def _fetched(cache: Path) -> Path:
    """Each package's files in a folder of its name; packages are fetched where they are absent."""
    folder = cache / "fonts"
    folder.mkdir(parents=True, exist_ok=True)
    missing = [package for package in PACKAGES if not (folder / package).is_dir()]
    if not missing:
        return folder
    if shutil.which("apt-get") is None:
        raise SystemExit(
            f"{folder}: packages are missing; unpack Debian's {', '.join(missing)} there, each to its name"
        )
    subprocess.run(["apt-get", "download", *missing], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    for package in missing:
        archive = next(folder.glob(f"{package}_*.deb"))
        subprocess.run(["dpkg-deb", "-x", str(archive), str(folder / f"{package}.new")], check=True)
        (folder / f"{package}.new").rename(folder / package)
        archive.unlink()
    return folder


def _faces(package: Path) -> list[Path]:
    """The first upright and inclined faces of a package that draw all capital letters, each in its own way."""
    found = []
    for path in sorted(
        path for path in package.rglob("*") if path.suffix in (".ttf", ".otf") and not path.is_symlink()
    ):
        drawn = {_drawn(path, letter).tobytes() for letter in string.ascii_uppercase}
        if len(drawn) == len(string.ascii_uppercase):
            found.append(path)
        if len(found) == FACES:
            break
    return found


def _drawn(face: Path, letter: str) -> Image.Image:
    """Black on white, in the middle."""
    font = ImageFont.truetype(str(face), SIZE, layout_engine=ImageFont.Layout.BASIC)
    picture = Image.new("L", (SIDE, SIDE), 255)
    ImageDraw.Draw(picture).text((SIDE / 2, SIDE / 2), letter, fill=0, font=font, anchor="mm")
    return picture
