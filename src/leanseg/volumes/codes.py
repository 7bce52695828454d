"""What label names mean: coded concepts of SNOMED CT for organs, sides and lesions.

Codes and meanings are those of DICOM PS3.16 (CID 7150 categories, 7151 and 7192 anatomy, 7159
and 7194 lesions, 244 laterality) and, for what these lack, of the public terminology that goes
with the TotalSegmentator classes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True)
class Concept:
    """A coded concept.

    Attributes:
        value: The code.
        meaning: What it stands for, in English.
        scheme: Who defines it: "SCT" for SNOMED CT, "NCIt" for the NCI Thesaurus.
    """

    value: str
    meaning: str
    scheme: str = "SCT"


@dataclass(frozen=True)
class Meaning:
    """What a segment is.

    Attributes:
        category: Anatomical structure, tissue, or abnormal structure.
        type: The organ, or the kind of lesion.
        side: Left or right, of the organ or of the organ that a lesion lies in; else None.
        region: The organ that a lesion lies in; None for organs and where it is not named.
        known: Whether the name was understood; else category and type say no more than that
            there is an anatomical structure.
    """

    category: Concept
    type: Concept
    side: Concept | None = None
    region: Concept | None = None
    known: bool = True

    @property
    def is_lesion(self) -> bool:
        """Whether it is a lesion, not an organ."""
        return self.category == ABNORMAL

    @property
    def is_tumour(self) -> bool:
        """Whether it is a lesion that is called a tumour."""
        return self.type in _TUMOURS


ANATOMY = Concept("91723000", "Anatomical Structure")
TISSUE = Concept("85756007", "Tissue")
ABNORMAL = Concept("49755003", "Morphologically Abnormal Structure")
LEFT = Concept("7771000", "Left")
RIGHT = Concept("24028007", "Right")

_NEOPLASM = Concept("108369006", "Neoplasm")
_PRIMARY = Concept("372087000", "Neoplasm, Primary")
_SECONDARY = Concept("14799000", "Neoplasm, Secondary")
_ENHANCING = Concept("C113842", "Enhancing Lesion", "NCIt")
_NON_ENHANCING = Concept("C81175", "Non-Enhancing Lesion", "NCIt")
_NECROSIS = Concept("6574001", "Necrosis")
_EDEMA = Concept("79654002", "Edema")
_TUMOURS = frozenset((_NEOPLASM, _PRIMARY, _SECONDARY, _ENHANCING, _NON_ENHANCING))

# Concept, and the names it goes by (see `_words` for what spelling does not matter). The first
# that fits wins, so what is more special stands first.
_LESIONS: tuple[tuple[Concept, str], ...] = (
    (_NON_ENHANCING, "non enhancing tumor core|non enhancing core|non enhancing tumor"),
    (_NON_ENHANCING, "nonenhancing tumor core|nonenhancing core|nonenhancing tumor|net|ncr net"),
    (_NON_ENHANCING, "necrotic and non enhancing tumor core|necrotic non enhancing tumor core"),
    (_ENHANCING, "gd enhancing tumor|enhancing tumor core|enhancing tumor|enhancing lesion"),
    (_ENHANCING, "enhancing|active tumor"),
    (_NECROSIS, "necrotic tumor core|necrotic core|necrosis|necrotic tumor|ncr"),
    (_EDEMA, "peritumoral edema|edema|flair hyperintensity"),
    (_SECONDARY, "metastases|metastasis|metastatic lesion|metastatic tumor|mets|met"),
    (_PRIMARY, "primary tumor|primary neoplasm|gtvp|gtv p"),
    (Concept("50960005", "Hemorrhage"), "hemorrhage|haemorrhage|bleeding"),
    (Concept("35566002", "Hematoma"), "hematoma|haematoma"),
    (Concept("396339007", "Thrombus"), "thrombus|thrombosis"),
    (Concept("44132006", "Abscess"), "abscess"),
    (Concept("41699000", "Effusion"), "effusion"),
    (Concept("367643001", "Cyst"), "cysts|cyst"),
    (Concept("27925004", "Nodule"), "nodules|nodule"),
    (Concept("4147007", "Mass"), "masses|mass"),
    (_NEOPLASM, "whole tumor|tumor core|tumors|tumor|neoplasm|cancer|carcinoma|sarcoma|glioma"),
    (_NEOPLASM, "glioblastoma|gtv|pdac|hcc|malignancy"),
    (Concept("52988006", "Lesion"), "lesions|lesion|abnormality"),
)

_VERTEBRAE = {
    **{"C1": "14806007", "C2": "39976000", "C3": "113205007", "C4": "5329002"},
    **{"C5": "36978003", "C6": "36054005", "C7": "87391001"},
    **{"T1": "64864005", "T2": "53733008", "T3": "1626008", "T4": "73071006"},
    **{"T5": "56401006", "T6": "45296009", "T7": "62487009", "T8": "11068009"},
    **{"T9": "82687006", "T10": "7610001", "T11": "12989004", "T12": "23215003"},
    **{"L1": "66794005", "L2": "14293000", "L3": "36470004", "L4": "11994002", "L5": "49668003"},
}
_ORGANS: tuple[tuple[Concept, str], ...] = (
    # Abdomen
    (Concept("10200004", "Liver"), "liver|hepar|hepatic"),
    (Concept("78961009", "Spleen"), "spleen|splenic"),
    (Concept("15776009", "Pancreas"), "pancreas|pancreatic"),
    (Concept("64033007", "Kidney"), "kidneys|kidney|renal"),
    (Concept("28231008", "Gallbladder"), "gall bladder|gallbladder"),
    (Concept("32849002", "Esophagus"), "esophagus|esophageal"),
    (Concept("69695003", "Stomach"), "stomach|gastric"),
    (Concept("38848004", "Duodenum"), "duodenum|duodenal"),
    (Concept("30315005", "Small intestine"), "small intestine|small bowel"),
    (Concept("14742008", "Large intestine"), "large intestine|large bowel"),
    (Concept("71854001", "Colon"), "colon|colonic"),
    (Concept("60184004", "Sigmoid colon"), "sigmoid colon|sigmoid"),
    (Concept("34402009", "Rectum"), "rectum|rectal"),
    (Concept("23451007", "Adrenal gland"), "adrenal glands|adrenal gland|adrenals|adrenal"),
    (Concept("28273000", "Bile duct"), "bile ducts|bile duct|biliary system"),
    (Concept("409615008", "Ascitic fluid"), "ascites|ascitic fluid"),
    # Pelvis
    (Concept("89837001", "Bladder"), "urinary bladder|bladder"),
    (Concept("41216001", "Prostate"), "prostate gland|prostate"),
    (Concept("35039007", "Uterus"), "uterus"),
    (Concept("15497006", "Ovary"), "ovaries|ovary"),
    (Concept("40689003", "Testis"), "testes|testis|testicles|testicle"),
    # Vessels
    (Concept("7832008", "Abdominal aorta"), "abdominal aorta"),
    (Concept("113262008", "Thoracic aorta"), "thoracic aorta"),
    (Concept("15825003", "Aorta"), "aorta|aortic"),
    (
        Concept("64131007", "Inferior vena cava"),
        "inferior vena cava|postcava|vena cava|ivc|venacava",
    ),
    (Concept("48345005", "Superior vena cava"), "superior vena cava|svc"),
    (
        Concept("110765007", "Portal vein and splenic vein"),
        "portal vein and splenic vein|portal and splenic veins|portal and splenic vein|"
        "portal splenic vein",
    ),
    (Concept("32764006", "Portal vein"), "portal vein|portalvein"),
    (Concept("35819009", "Splenic vein"), "splenic vein"),
    (Concept("8993003", "Hepatic vein"), "hepatic veins|hepatic vein"),
    (Concept("56400007", "Renal vein"), "renal veins|renal vein"),
    (Concept("2841007", "Renal artery"), "renal arteries|renal artery"),
    (Concept("57850000", "Celiac Axis"), "celiac trunk|celiac artery|celiac axis"),
    (Concept("42258001", "Superior mesenteric artery"), "superior mesenteric artery|sma"),
    (Concept("90771006", "Superior Mesenteric Vein"), "superior mesenteric vein|smv"),
    (Concept("81040000", "Pulmonary artery"), "pulmonary arteries|pulmonary artery"),
    (Concept("122972007", "Pulmonary vein"), "pulmonary veins|pulmonary vein"),
    (Concept("73634005", "Common iliac artery"), "common iliac artery|iliac artery"),
    (Concept("46027005", "Common iliac vein"), "common iliac vein|iliac vein|iliac vena"),
    (
        Concept("59820001", "Blood Vessel"),
        "blood vessels|blood vessel|vessels|vessel|liver vessels|hepatic vessels",
    ),
    # Chest
    (Concept("45653009", "Upper lobe of lung"), "lung upper lobe|upper lobe of lung"),
    (Concept("90572001", "Lower lobe of lung"), "lung lower lobe|lower lobe of lung"),
    (Concept("72481006", "Middle lobe of right lung"), "lung middle lobe|middle lobe of lung"),
    (Concept("39607008", "Lung"), "lungs|lung|pulmonary"),
    (Concept("82471001", "Left atrium"), "left atrium|left heart atrium"),
    (Concept("73829009", "Right atrium"), "right atrium|right heart atrium"),
    (Concept("87878005", "Left ventricle"), "left ventricle|left heart ventricle"),
    (Concept("53085002", "Right ventricle"), "right ventricle|right heart ventricle"),
    (Concept("74281007", "Myocardium"), "heart myocardium|myocardium"),
    (Concept("80891009", "Heart"), "heart|cardiac"),
    (Concept("44567001", "Trachea"), "trachea|windpipe"),
    (Concept("69748006", "Thyroid"), "thyroid gland|thyroid"),
    (Concept("76752008", "Breast"), "breasts|breast"),
    (Concept("3120008", "Pleura"), "pleura|pleural"),
    (Concept("76848001", "Pericardium"), "pericardium|pericardial"),
    # Head
    (Concept("12738006", "Brain"), "brain|cerebral"),
    (Concept("119238007", "Brain Stem"), "brain stem|brainstem"),
    (Concept("113305005", "Cerebellum"), "cerebellum"),
    (Concept("5366008", "Hippocampus"), "hippocampus"),
    (Concept("389081007", "Gray Matter"), "gray matter|grey matter"),
    (Concept("389080008", "White Matter"), "white matter"),
    (Concept("81745001", "Eye"), "eyes|eye"),
    (Concept("18234004", "optic nerve"), "optic nerve"),
    (Concept("45289007", "Parotid gland"), "parotid gland|parotid"),
    (Concept("91609006", "Mandible"), "mandible"),
    (Concept("89546000", "Skull"), "skull"),
    # Muscles, bones, the rest. Psoas alone is coded as the muscle that it is part of.
    (Concept("68455001", "Iliopsoas muscle"), "iliopsoas muscle|iliopsoas|psoas muscle|psoas"),
    (Concept("68455001", "Iliopsoas muscle"), "psoas major muscle|psoas major"),
    (Concept("44947003", "Erector spinae muscle"), "erector spinae|autochthon"),
    (Concept("181674001", "Gluteus maximus muscle"), "gluteus maximus"),
    (Concept("78333006", "Gluteus medius muscle"), "gluteus medius"),
    (Concept("75297007", "Gluteus minimus muscle"), "gluteus minimus"),
    (Concept("5798000", "Diaphragm"), "diaphragm"),
    (Concept("127954009", "Skeletal muscle"), "skeletal muscle|muscles|muscle"),
    (Concept("71341001", "Femur"), "femurs|femur|femora"),
    (Concept("2812003", "Femoral head"), "femoral head"),
    (Concept("85050009", "Humerus"), "humerus"),
    (Concept("79601000", "Scapula"), "scapula"),
    (Concept("51299004", "Clavicle"), "clavicle|clavicula"),
    (Concept("56873002", "Sternum"), "sternum"),
    (Concept("50016007", "Costal Cartilage"), "costal cartilages|costal cartilage"),
    (Concept("113197003", "Rib"), "ribs|rib"),
    (Concept("54735007", "Sacrum"), "sacrum"),
    (Concept("29836001", "Hip"), "hip"),
    (Concept("51282000", "Vertebra"), "vertebrae|vertebra"),
    *(
        (Concept(value, f"{level} vertebra"), f"vertebrae {level}|vertebra {level}".lower())
        for level, value in _VERTEBRAE.items()
    ),
    (Concept("421060004", "Spine"), "spine|vertebral column"),
    (Concept("2748008", "Spinal cord"), "spinal cord|spinal canal"),
    (Concept("272673000", "Bone"), "bones|bone"),
    (Concept("39937001", "Skin"), "skin"),
    (Concept("59441001", "Lymph Node"), "lymph nodes|lymph node|lymphnode|gtvn|gtv n"),
)
_TISSUES: tuple[tuple[Concept, str], ...] = (
    (Concept("67769002", "Subcutaneous fatty tissue"), "subcutaneous fat|subcutaneous tissue"),
    (Concept("55603005", "Fat"), "adipose tissue|visceral fat|fat"),
)
# Parts that, named with an organ, mean the organ itself.
_FILLERS = frozenset(
    ("the", "of", "in", "a", "gland", "structure", "organ", "segmentation", "mask")
)
# What may stand with a lesion without making it another kind.
_ADJECTIVES = frozenset(
    ("necrotic", "solid", "cystic", "benign", "malignant", "residual", "recurrent", "main", "core")
)
_SPELLINGS = {
    "oesophagus": "esophagus",
    "oesophageal": "esophageal",
    "tumour": "tumor",
    "tumours": "tumors",
    "tumoral": "tumor",
    "oedema": "edema",
    "peritumoural": "peritumoral",
    "coeliac": "celiac",
    "artey": "artery",
}
_SIDES = {"left": LEFT, "lt": LEFT, "l": LEFT, "right": RIGHT, "rt": RIGHT, "r": RIGHT}
# Names that carry their side themselves.
_SIDED = frozenset(("82471001", "73829009", "87878005", "53085002", "72481006"))


@lru_cache(maxsize=1024)
def meaning_of(name: str) -> Meaning:
    """What a label name means.

    Case, underscores, hyphens, joined words ("KidneyLeft"), British or American spelling, the
    place of the side ("left kidney", "kidney_l") and numbers do not matter.

    Args:
        name: Of a label, such as "liver", "kidney_left" or "pancreas tumour".

    Returns:
        For a name that is not known, the category alone: an anatomical structure of no stated
        kind, or a lesion of no stated kind.
    """
    words = _words(name)
    sides = {_SIDES[word] for word in words if word in _SIDES}
    side = sides.pop() if len(sides) == 1 else None
    bare = [word for word in words if word not in _SIDES]
    lesion, rest = _found(_LESIONS, bare)
    if lesion is not None:
        organ, left = _found(_ORGANS, rest)
        if (
            set(left) - _ADJECTIVES
        ):  # such as "tumour bed": what it is, is not said by the words understood
            return Meaning(ANATOMY, ANATOMY, known=False)
        return Meaning(ABNORMAL, lesion, side, organ)
    for category, table in ((ANATOMY, _ORGANS), (TISSUE, _TISSUES)):
        # "left atrium" has a concept of its own.
        for tried in (_side_first(words, side), bare):
            concept, left = _found(table, tried)
            if concept is not None and not left:
                sided = concept.value in _SIDED
                return Meaning(category, concept, None if sided else side)
    return Meaning(ANATOMY, ANATOMY, known=False)


def _words(name: str) -> list[str]:
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    words = re.findall(r"[^\W_]+", spaced.lower())
    # A number tells one lesion from the next; a letter with a number names a vertebra.
    words = [
        word if re.fullmatch(r"[a-z]\d+", word) else word.strip("0123456789") for word in words
    ]
    return [_SPELLINGS.get(word, word) for word in words if word and word not in _FILLERS]


def _side_first(words: list[str], side: Concept | None) -> list[str]:
    bare = [word for word in words if word not in _SIDES]
    return bare if side is None else [side.meaning.lower(), *bare]


def _found(
    table: tuple[tuple[Concept, str], ...], words: list[str]
) -> tuple[Concept | None, list[str]]:
    """The concept of the longest name in the table that occurs in the words, and other words."""
    best: tuple[int, Concept, int] | None = None
    for concept, names in table:
        for name in names.split("|"):
            parts = name.split()
            for start in range(len(words) - len(parts) + 1):
                is_longer = best is None or len(parts) > best[0]
                if is_longer and words[start : start + len(parts)] == parts:
                    best = (len(parts), concept, start)
    if best is None:
        return None, words
    length, concept, start = best
    return concept, words[:start] + words[start + length :]
