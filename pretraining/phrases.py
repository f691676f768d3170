"""The words of drawn pictures and of sentences about them, English and Japanese side by side."""

COLOURS = {
    "red": "赤い", "green": "緑の", "blue": "青い", "black": "黒い", "white": "白い", "teal": "青緑の",
    "brown": "茶色の", "gray": "灰色の", "yellow": "黄色い", "orange": "オレンジ色の", "purple": "紫の",
    "pink": "ピンクの",
}  # fmt: skip
SHAPES = {
    "circle": "円", "rectangle": "長方形", "triangle": "三角形", "square": "正方形", "star": "星", "ring": "輪",
    "cross": "十字", "ellipse": "楕円", "diamond": "ひし形", "hexagon": "六角形", "line": "線", "dot": "点",
}  # fmt: skip
NUMBERS = {
    "one": "一つの", "two": "二つの", "three": "三つの", "four": "四つの", "five": "五つの", "many": "たくさんの",
}  # fmt: skip
TEXTURES = {
    "woven fabric": "織物", "knitted fabric": "編み物", "felt": "フェルト", "brushed metal": "ヘアライン加工の金属",
    "cast metal": "鋳物", "wood grain": "木目", "striped cloth": "縞模様の布", "checked cloth": "チェック柄の布",
    "noise": "ノイズ模様", "grain": "砂目", "marble": "大理石", "paper": "紙", "leather": "革",
    "concrete": "コンクリート", "smooth surface": "なめらかな表面", "gradient": "グラデーション",
}  # fmt: skip
DEFECTS = {
    "scratch": "傷", "hole": "穴", "dent": "へこみ", "stain": "汚れ", "missing thread": "糸抜け",
    "noisy spot": "ざらつき", "blurred spot": "ぼやけ", "bright spot": "明るい点", "dark spot": "暗い点",
    "crease": "しわ", "crack": "ひび", "odd patch": "むら",
}  # fmt: skip
OTHER = {  # what inspection calls good and bad
    "a good part": "良品", "a defective part": "不良品", "normal": "正常", "abnormal": "異常", "a defect": "欠陥",
    "no defect": "欠陥なし", "a flawless surface": "傷のない表面", "damaged": "破損", "broken": "壊れた",
    "rust": "錆", "a fabric": "布", "a textile": "繊維", "a metal surface": "金属の表面", "a photo": "写真",
    "a drawing": "絵", "contamination": "異物", "discoloration": "変色", "deformation": "変形", "a chip": "欠け",
    "a burr": "バリ", "a screw": "ねじ", "a circuit board": "基板", "a bottle": "瓶", "a pill": "錠剤",
    "a cable": "ケーブル", "wood": "木材", "a tile": "タイル", "a part": "部品", "a product": "製品",
    "an inspection picture": "検査画像", "t-shirt": "Tシャツ", "trousers": "ズボン", "pullover": "セーター",
    "dress": "ワンピース", "coat": "コート", "sandal": "サンダル", "shirt": "シャツ", "sneaker": "スニーカー",
    "bag": "かばん", "ankle boot": "ブーツ",
}  # fmt: skip

# (English, Japanese): every sentence is about one thing, in braces.
SENTENCES = (
    ("a photo of a {}", "{}の写真"),
    ("a photo of {}", "{}を撮った写真"),
    ("a picture of a {}", "{}の画像"),
    ("an icon of {}", "{}のアイコン"),
    ("a drawing of a {}", "{}の絵"),
    ("a close-up of a {}", "{}の拡大写真"),
    ("a small {}", "小さい{}"),
    ("a large {}", "大きい{}"),
    ("two {}", "二つの{}"),
    ("a broken {}", "壊れた{}"),
    ("a damaged {}", "破損した{}"),
    ("a {} without defects", "欠陥のない{}"),
    ("a {} with a defect", "欠陥のある{}"),
    *((f"a {en} {{}}", f"{ja}{{}}") for en, ja in COLOURS.items()),
    *((f"{{}} with a {en}", f"{ja}のある{{}}") for en, ja in DEFECTS.items()),
)


def pairs() -> list[tuple[str, str]]:
    """Every (Japanese, English) phrase about drawn pictures; the English one is what both towers aim at."""
    found = [(ja, en) for table in (SHAPES, TEXTURES, DEFECTS, OTHER) for en, ja in table.items()]
    found += [(ja.removesuffix("の").removesuffix("い") if len(ja) > 2 else ja, en) for en, ja in COLOURS.items()]
    for en, ja in COLOURS.items():
        found += [(ja + shape_ja, f"a {en} {shape}") for shape, shape_ja in SHAPES.items()]
    for number, number_ja in NUMBERS.items():
        found += [(number_ja + shape_ja, f"{number} {shape}s") for shape, shape_ja in SHAPES.items()]
    for texture, texture_ja in TEXTURES.items():
        found += [(f"{ja}のある{texture_ja}", f"{texture} with a {en}") for en, ja in DEFECTS.items()]
        found += [(f"{texture_ja}の{ja}", f"{texture} with a {en}") for en, ja in DEFECTS.items()]
        found += [
            (f"欠陥のない{texture_ja}", f"{texture} without defects"),
            (f"正常な{texture_ja}", f"normal {texture}"),
        ]
    return found
