"""What the words of a series say of it, in many languages: posture, spectral maps, and scans made for another purpose.

Technologists name what they do; the attributes that should say so (Patient Position, Image Type) are often a
console's default. Where words and attributes disagree, the less usual of the two holds, and a flag says so.
"""

import re
from typing import Final, Literal

from pydicom import Dataset

from dicomnode.analysis.findings import Flag
from dicomnode.analysis.series.headers import plain, string, strings, text

Posture = Literal["supine", "prone", "decubitus", "unknown"]
Spectral = Literal["", "monoenergetic", "material"]

#: As in `breath`: what describes the images outweighs the protocol of the whole examination.
_POSTURE_IN: Final = ("ImageComments", "SeriesDescription", "AcquisitionProtocolDescription", "ProtocolName")
_MADE_FOR_IN: Final = ("ImageComments", "SeriesDescription")
#: By language, since one word seldom serves two; a gap where people write two words or one.
_PRONE: Final = re.compile(
    r"\b(prone\w*|prn|face down"
    r"|pron|pron[oaie]|pronad[oa]|pronat\w*|pronac\w*|pronazion\w*|boca abajo|(de )?brucos"
    r"|(decub\w*|dekub\w*|posicao|posicion|posizione|position) (ventral\w*|pron\w*)|(ventral|pron\w*) [dp]e[ck]ub\w*"
    r"|procubitus|(?<!bas )(?<!basso )(?<!baixo )(?<!bajo )ventre"
    r"|bauch ?lage\w*|bauchl|buik ?lig\w*|op de buik"
    r"|(mag|buk) ?lage\w*|framstupa|(mage|mave|bug|buk) ?(leje\w*|lejring\w*|leie\w*)"
    r"|na brzuchu|na brise|na bruchu|hason( fekv\w*)?"
    r"|yuz ?ustu\w*|yuzu ?koyun|vatsa ?makuu\w*|pain ?makuu\w*|vatsallaan|mahallaan"
    r"|на животе|πρηνη\w*)\b|腹臥|腹卧|俯卧|俯臥|伏卧|うつ伏せ|うつふせ|복와|엎드"
)
_SUPINE: Final = re.compile(
    r"\b(supine|supin\w*|face up|boca arriba|barriga para cima"
    r"|(decub\w*|dekub\w*|posicao|posicion|posizione|position) dorsal\w*|dorsal [dp]e[ck]ub\w*"
    r"|(sur( le)?|position|couche( sur le)?) dos|(thorax|poumons?|inspi\w*|expi\w*|tdm) dos$"
    r"|rue?cken ?lage\w*|rue?ckenl|rug ?lig\w*|op de rug"
    r"|rygg ?lage\w*|rygg? ?(leje\w*|lejring\w*|leie\w*)"
    r"|na plecach|na wznak|na zadech|na chrbte|hanyatt( fekv\w*)?"
    r"|sirt ?ustu\w*|selin ?makuu\w*|selallaan|на спине|υπτια\w*)\b|仰臥|仰卧|背臥|仰向け|앙와"
)
_DECUBITUS: Final = re.compile(
    r"\b(decub\w*|lld|rld|lat dec|side down|lateral(is)? (position|d\w*cub\w*)|lateral\w* dekub\w*|dekub\w* lateral\w*"
    r"|sur le cote|sul fianco|\w*seite?n? ?lage\w*|seitlage\w*|\w*zij ?lig\w*|op de zij"
    r"|sido? ?lage\w*|side ?(leje\w*|lejring\w*|leie\w*)"
    r"|na (lewym |prawym |levem |pravem |lavom |pravom )?boku|oldalt fekv\w*"
    r"|yan(a)? yat\w*|kylki ?makuu\w*|kyljellaan|на (\w+ )?боку)\b|側臥|侧卧|측와"
)
#: Patient Position (PS3.3 C.7.3.1.1.2).
_POSITIONS: Final[dict[str, Posture]] = {"S": "supine", "P": "prone", "DL": "decubitus", "DR": "decubitus"}
#: Image Type, value 4 on (PS3.3 C.8.15.3.x, Multi-energy CT), and what vendors write there.
_MATERIAL_TYPES: Final = frozenset(
    ("MAT_SPECIFIC", "MAT_FRACTIONAL", "EFF_ATOMIC_NUM", "ELECTRON_DENSITY", "MAT_VALUE_BASED")
)
_MONO_TYPES: Final = frozenset(("VMI", "MAT_REMOVED", "MAT_MODIFIED", "ENERGY_PROP_WT"))
_MONO: Final = re.compile(
    r"\b(kev|mono ?e|mono ?plus|mono|monoenerg\w*|monochromat\w*|monoskop\w*|vmi|vnc|vue"
    r"|virt(ual)? ?(mono\w*|non ?contrast|unenhanced|native)"
    r"|virtuell\w* (nativ\w*|mono\w*)|virtuel\w* (sans|mono\w*)|virtual\w* (senza|sin|sem|basal\w*)"
    r"|(calcium|iodine|jod) (supp\w*|remov\w*)|casupp\w*|vnca|virtual nc|contrast enhanced structures)\b"
)
_MATERIAL: Final = re.compile(
    r"\b(z ?eff\w*|eff\w* (z|atomic)|atomic num\w*|electron dens\w*|elektronendichte|iodine (no|dens\w*|maps?|water)"
    r"|iodine (overlay|perf\w*|images?)|[ij]od ?(karte\w*|bild\w*|dichte\w*|u?e?berlag\w*|maps?|kart\w*|kort)"
    r"|cart(e|es|ographie) (d |de l |de )?iode|iode (eau|map|carte)|(densite|image) (d |en )?iode"
    r"|mapp[ae] (di |dello |dell? )?iodio|iodio (mappa|acqua)|densita (di |dello )?iodio"
    r"|mapas? (de |del |do )?[iy]odo|[iy]odo (mapa|agua)|densidade? (de |del |do )?[iy]odo"
    r"|jo(od|dium) ?(kaart\w*|maps?|beeld\w*|dichtheid)|map[ay] jod(u|ow\w*)|jodov\w* map\w*|jodi ?kart\w*"
    r"|iyot ?(harita\w*|map\w*)|иодн\w* карт\w*|карт\w* иода"
    r"|calcium (water|iodine)|water iodine|uric acid|material (dens\w*|decomp\w*|spec\w*)|lung ?pbv|pbv|rho ?z|fat map"
    r"|hap fat|sbi|spectral base\w*)\b|碘图|碘圖|碘密度|ヨート(マッフ|密度)|요오드 ?(맵|지도)"
)
#: Of the contrast medium this is said too.
_IODINE: Final = re.compile(r"\biodine( conc\w*)?\b")
_CONVENTIONAL: Final = re.compile(r"\b(conventional|konventionell\w*|convention\w*|gemischt|mixed)\b")
#: With these, it is the contrast medium that was given.
_GIVEN: Final = re.compile(
    r"\b(contrast|kontrast\w*|remov\w*|supp\w*|with|mit|avec|con|iv|i v|post|after|nach|apres)\b"
)
_ONE_TUBE: Final = re.compile(r"(^|[^a-z])[ab]_?(sn)?\d{2,3} ?kv")
#: One of several phases, in per cent of the cycle; iterative reconstruction has strengths in per cent too.
_PHASE: Final = re.compile(r"(?<![a-z0-9.,])4 ?d([ _-]?ct)?(?![a-z0-9])|(^|[^a-z0-9.,])\d{1,3} ?%")
_STRENGTH: Final = re.compile(
    r"(asir\W?v?|idose|iter\w*|mbir|dlir|veo|safire|admire|aidr|strength|blend\w*|ss|o2|dose|dosis|overlap)"
    r"[ _(:-]*\d{1,3} ?%"
    r"|\d{1,3} ?%[ _]*(asir|iter|mbir|dlir|veo|strength|blend|dose|dosis|overlap)|ss ?\d+[ _(]*\d{1,3} ?%"
)

_MADE_FOR: Final[tuple[tuple[Flag, re.Pattern[str]], ...]] = (
    (
        Flag(
            "gated",
            "warning",
            "Gated or one phase of several (heart or breath): what the lungs measure depends on the phase.",
        ),
        re.compile(
            r"\b(ecg|ekg|gated|gating|getriggert|triggered|best ?(dias|sys)\w*|diastol\w*|systol\w*|cine"
            r"|ca ?scor\w*|calcium ?scor\w*|snapshot ?freeze"
            r"|ave ?ip|average ip|resp(iratory)? (phase|gat\w*|corr\w*))\b"
        ),
    ),
    (
        Flag(
            "attenuation-correction",
            "warning",
            "Made for the attenuation correction of PET or SPECT: low dose, usually in shallow free breathing.",
        ),
        re.compile(
            r"^ ?ac\b(?! joint)|\b(ctac|ac ?ct|ct ?ac|acct|(low ?dose|ld|for|wb|whole body|torso) ac"
            r"|att?e?n\w* ?corr?\w*|schwa?e?chungskorr\w*|corr\w* (d|de|da|di|del) ?att?enua\w*|spect ?ct|ct ?spect)\b"
        ),
    ),
    (
        Flag(
            "localizer-scan",
            "warning",
            "Described as a localizer or bolus-tracking scan: its dose is reduced, so attenuation is less exact.",
        ),
        re.compile(
            r"\b(lo[ck]ali[sz]\w*|locator|locateur|d?scout\w*|surview|topo|topogra\w*|scano\w*|pilot(?! stud)\w*"
            r"|plan(ning)? scan|prescan|ubersicht\w*|reperage|centrage|test ?bolus|bolus ?timing|timing ?bolus"
            r"|(pre)?monitoring|bolus ?(track|verfolg)\w*|smart ?prep|sure ?start|care ?bolus)\b"
        ),
    ),
)


def posture(dataset: Dataset) -> Posture:
    """Return how the patient lies, by words and by Patient Position: where they disagree, what is not supine."""
    said, stated = _posture_in_words(dataset), _stated_posture(dataset)
    return next(
        (found for found in (said, stated) if found not in ("supine", "unknown")), said if said != "unknown" else stated
    )


def postures_disagree(dataset: Dataset) -> bool:
    """Whether words and Patient Position tell two postures."""
    said, stated = _posture_in_words(dataset), _stated_posture(dataset)
    return "unknown" not in (said, stated) and said != stated


def spectral(dataset: Dataset) -> Spectral:
    """Return what kind of map a multi-energy scanner computed; "" for a conventional image.

    Monoenergetic and virtual unenhanced images are in Hounsfield units, of another energy; a material map is not.
    """
    types = {value.upper() for value in strings(dataset, "ImageType")[2:]}
    described = text(dataset, "SeriesDescription")
    words = f"{plain(described)} {plain(text(dataset, 'ImageComments'))}"
    if types & _MATERIAL_TYPES or any(_MATERIAL.search(w) or _IODINE.search(w) for w in map(plain, types)):
        return "material"
    if types & _MONO_TYPES or any(_MONO.search(plain(value)) for value in types):
        return "monoenergetic"
    if _CONVENTIONAL.search(words):
        return ""
    if _MATERIAL.search(words) or (_IODINE.search(words) and not _GIVEN.search(words)):
        return "material"
    return "monoenergetic" if _MONO.search(words) or _ONE_TUBE.search(described.lower()) else ""


def made_for(dataset: Dataset) -> tuple[Flag, ...]:
    """Return a flag for each purpose beside the diagnostic scan of the lungs that the header tells."""
    words = " ".join(plain(text(dataset, keyword)) for keyword in _MADE_FOR_IN)
    found = [flag for flag, pattern in _MADE_FOR if pattern.search(words)]
    gated = _MADE_FOR[0][0]
    is_phase = _PHASE.search(_STRENGTH.sub(" ", text(dataset, "SeriesDescription").lower()))
    if gated not in found and (is_phase or string(dataset, "NominalPercentageOfCardiacPhase")):
        found.insert(0, gated)
    return tuple(found)


def _posture_in_words(dataset: Dataset) -> Posture:
    for keyword in _POSTURE_IN:
        words = plain(text(dataset, keyword))
        prone, supine = bool(_PRONE.search(words)), bool(_SUPINE.search(words))
        if prone != supine:
            return "prone" if prone else "supine"
        if not prone and _DECUBITUS.search(words):
            return "decubitus"
    return "unknown"


def _stated_posture(dataset: Dataset) -> Posture:
    position = string(dataset, "PatientPosition").upper()
    return (
        _POSITIONS.get(position[2:], "unknown") if position[:2] in ("HF", "FF", "LF", "RF", "AF", "PF") else "unknown"
    )
