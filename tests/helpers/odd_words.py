"""Words such as headers can hold: wide, without spaces, of many scripts, with signs upon signs."""

from typing import Final

from hypothesis import strategies as st

GE: Final = (
    "The scanners differ: was GE MEDICAL SYSTEMS REVOLUTION CT, now SIEMENS HEALTHINEERS NAEOTOM ALPHA.PEAK; "
    "CONVOLUTION KERNEL STANDARD PLUS WAS CHANGED TO QUANTITATIVE REGULAR 40F WITH ITERATIVE RECONSTRUCTION STRENGTH 3"
)
_LETTERS: Final = "WMil1. -/_%山田、。한글ابحہےעשסมชาี้कर्षिമബാංරමေءé\u0301\u0323😀\u200d\U00012000བ$\\<#*\"'"
_WORD: Final = st.text(_LETTERS, min_size=1, max_size=24)
_LONG: Final = st.sampled_from("W@M山ى한ส").flatmap(lambda c: st.integers(30, 120).map(lambda n: n * c))

WORDS: Final = st.one_of(
    st.lists(st.one_of(_WORD, _LONG, st.sampled_from(GE.split())), min_size=1, max_size=6).map(" ".join),
    st.text(_LETTERS.replace(" ", ""), min_size=1, max_size=90),
    st.text(min_size=1, max_size=60),
)
