"""Posture, spectral maps and scans for another purpose, in the words of a series."""

import pytest

from dicomnode.analysis.series import series_words
from tests.helpers.ct_files import ct_series

PRONE = ["HRCT PRONE", "Lunge Bauchlage 1.0", "thorax décubitus ventral", "procubitus", "torace prono", "buikligging",
         "腹臥位", "на животе", "ProneHRCT", "俯臥位", "decub ventral"]  # fmt: skip
SUPINE = ["HRCT supine", "Rückenlage", "décubitus dorsal", "torace supino", "仰臥位"]
DECUBITUS = ["left lateral decubitus", "Thorax Seitenlage", "側臥位", "LLD Chest"]
# In more languages, with and without accents, as one word or two.
PRONE_TOO = [
    "YÜZÜSTÜ", "yüzüstü", "Yüz üstü", "YÜZÜSTÜ YATIŞ", "yuzukoyun", "Yüzükoyun", "pron pozisyon", "bugleje",
    "mageleje", "maveleje", "mageleie", "bukleie", "Magläge", "maglage", "bukläge", "Thorax framstupa",
    "Vatsamakuu", "päinmakuulla", "BAUCHLAGE", "Bauchlagerung", "Bauch-Lage", "THORAX_BAUCHLAGE", "buikligging",
    "Buik ligging", "procubitus", "décubitus ventral", "DECUBITUS-VENTRAL", "Thorax ventre", "sur le ventre",
    "prono", "decubito prono", "posizione prona", "decúbito ventral", "em pronação", "boca abajo", "na brzuchu",
    "うつぶせ", "ventral decubitus",
]  # fmt: skip
SUPINE_TOO = [
    "SIRTÜSTÜ", "s\u0131rtüstü", "s\u0131rt üstü yat\u0131ş",
    "rygleje", "ryggleie", "Ryggläge", "rygglage", "selinmakuu",
    "RUECKENLAGE", "Rückenlage", "Rückenlagerung", "Ruecken-Lage", "rugligging", "decubitus dorsal",
    "décubitus dorsal", "sur le dos", "Thorax dos", "supino", "decubito supino", "decúbito supino", "na plecach",
    "na wznak", "dorsal decubitus",
]  # fmt: skip
DECUBITUS_TOO = [
    "sideleje", "sideleie", "sidoläge", "sidläge", "Sido-läge", "kylkimakuu", "Seitenlage", "SEITENLAGERUNG",
    "Seitlagerung", "Linksseitenlage", "zijligging", "linker zijligging", "décubitus latéral",
    "decubito laterale sinistro", "decúbito lateral", "na boku", "na lewym boku", "yan yat\u0131ş", "YAN YATIŞ",
    "yan yatis", "lateral dekübitus", "left lateral decubitus", "на правом боку",
]  # fmt: skip
NO_POSTURE = [
    "low dose", "Dosis 100", "pronounced", "dos fases", "TC dos pulmoes", "fase dos", "basso ventre", "bas-ventre",
    "ventral hernia", "supervised", "Lagerung", "sidelobe", "maglev", "dose", "prong", "Abdomen", "magnetic",
    "lungs", "thorax", "prondo", "hasonlo", "Bauch", "Ruecken", "Seite", "rug", "zij", "dorsal spine", "position 2",
    "Thorax Lage", "lateral view", "Inside", "boku", "yatay",
]  # fmt: skip
MAPS = [
    "carte d'iode", "carte iode", "Cartes d\u2019iode", "mappa iodio", "mappa dello iodio", "mapa de yodo",
    "mapa de iodo", "Jodkarte", "JOD-KARTE", "joodkaart", "iodine map", "iodine map post contrast",
    "Jodüberlagerung", "jodmap", "jodkarta", "jodkort", "mapa jodowa", "mapa jodu", "jodikartta", "İYOT HARİTASI",
    "iyot haritas\u0131", "йодная карта", "碘图", "ヨードマップ", "요오드 맵", "Iodine(Water)",
]  # fmt: skip
GIVEN = [
    "avec iode", "sans iode IV", "Thorax iode", "con iodio", "yodo iv", "kontrast jod",
    "iodine conc 370 iv contrast", "iodine contrast", "injection iode", "carte", "Thorax mit Jod",
]  # fmt: skip
MONO = [
    "MonoE 40keV[HU]",
    "Mono+ 55 keV",
    "VMI 70",
    "Virtual mono 60",
    "VNC[HU]",
    "Virtual Non Contrast",
    "DE_Thorax A_80kV",
    "GSI Mono 70keV",
    "CaSupp 25",
]
MATERIAL = [
    "Iodine no Water[mg/ml]",
    "Z Effective[]",
    "Electron Density[%EDW]",
    "Jodkarte",
    "Zeff",
    "Lung PBV",
    "Water(Iodine)",
    "Rho/Z",
    "SBI",
]
CONVENTIONAL = [
    "Thorax 3.0 conventional",
    "Lung 1.0",
    "Thorax mit Kontrastmittel",
    "iodine contrast thorax",
    "Thorax 120kV",
    "Thorax nach Iodine iv",
    "Thorax HAP",
    "Thorax T3D Br60",
    "monochrome",
]


def words(description: str, **more: object) -> object:
    return ct_series(SpecificCharacterSet="ISO_IR 192", SeriesDescription=description, **more)[0]


@pytest.mark.parametrize(
    ("description", "expected"),
    [(w, "prone") for w in PRONE + PRONE_TOO]
    + [(w, "supine") for w in SUPINE + SUPINE_TOO]
    + [(w, "decubitus") for w in DECUBITUS + DECUBITUS_TOO]
    + [(w, "unknown") for w in NO_POSTURE],
)
def test_posture_in_words(description: str, expected: str) -> None:
    assert series_words.posture(words(description, PatientPosition="")) == expected


@pytest.mark.parametrize(
    ("description", "position", "posture", "disagree"),
    [
        ("HRCT PRONE", "HFS", "prone", True),
        ("HRCT supine", "HFP", "prone", True),
        ("Lung 1.0", "HFDR", "decubitus", False),
        ("Lung 1.0", "FFP", "prone", False),
        ("prone and supine", "HFS", "supine", False),
        ("Lung 1.0", "", "unknown", False),
    ],
)
def test_words_and_patient_position(description: str, position: str, posture: str, disagree: bool) -> None:
    dataset = words(description, PatientPosition=position)
    assert series_words.posture(dataset) == posture
    assert series_words.postures_disagree(dataset) == disagree


@pytest.mark.parametrize(
    ("description", "expected"),
    [(w, "monoenergetic") for w in MONO]
    + [(w, "material") for w in MATERIAL + MAPS]
    + [(w, "") for w in CONVENTIONAL + GIVEN],
)
def test_spectral_maps_in_words(description: str, expected: str) -> None:
    assert series_words.spectral(words(description)) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("MONOENERGETIC", "monoenergetic"),
        ("VIRTUAL_NC", "monoenergetic"),
        ("Z_EFF", "material"),
        ("IODINE_NO_WATER", "material"),
        ("VMI", "monoenergetic"),
        ("EFF_ATOMIC_NUM", "material"),
        ("CT_SOM5 SPI", ""),
    ],
)
def test_spectral_maps_by_image_type(value: str, expected: str) -> None:
    dataset = words("Lung 1.0", ImageType=["ORIGINAL", "PRIMARY", "AXIAL", value])
    assert series_words.spectral(dataset) == expected


@pytest.mark.parametrize(
    ("description", "code"),
    [
        ("Thorax EKG 75%", "gated"),
        ("CTA BestDiast 70 %", "gated"),
        ("4D CT", "gated"),
        ("0.6 B26f 30%", "gated"),
        ("RespLow 0% Ex", "gated"),
        ("CaScore", "gated"),
        ("4DCT T50", "gated"),
        ("4D_CT_50", "gated"),
        ("75% iDose 4", "gated"),
        ("70% ASiR 40%", "gated"),
        ("HR 60% SAFIRE", "gated"),
        ("SnapShot Freeze", "gated"),
        ("CT for AC", "attenuation-correction"),
        ("CT WB AC 4.0 B30f", "attenuation-correction"),
        ("AC 3.0 B31s", "attenuation-correction"),
        ("CT Atten Cor", "attenuation-correction"),
        ("corrección de atenuación", "attenuation-correction"),
        ("CT corr. d'atténuation", "attenuation-correction"),
        ("CT_SchwaechungsKorrektur", "attenuation-correction"),
        ("SPECT CT", "attenuation-correction"),
        ("Lokalizer", "localizer-scan"),
        ("3DScout", "localizer-scan"),
        ("Timing bolus", "localizer-scan"),
        ("Übersicht", "localizer-scan"),
        ("Repérage", "localizer-scan"),
        ("Low Dose AC", "attenuation-correction"),
        ("Dual Scano", "localizer-scan"),
        ("CTAC 4.0", "attenuation-correction"),
        ("AC CT WB", "attenuation-correction"),
        ("Schwächungskorrektur", "attenuation-correction"),
        ("3D Localizer", "localizer-scan"),
        ("Monitoring", "localizer-scan"),
    ],
)
def test_purposes(description: str, code: str) -> None:
    assert [flag.code for flag in series_words.made_for(words(description))] == [code]


@pytest.mark.parametrize(
    "description",
    [
        "Lung 1.0",
        "Thorax Planungs-CT",
        "Thorax coronal",
        "HRCT inspiration",
        "acute chest",
        "Lung ASiR-V 50%",
        "50% ASiR",
        "iDose 50%",
        "1.0 x 0.7 overlap 50%",
        "Pilot study",
        "AC joint",
    ],
)
def test_no_purpose(description: str) -> None:
    assert series_words.made_for(words(description)) == ()
