"""Images that call themselves derived and are originals in all but name.

Older Siemens scanners wrote DERIVED into Image Type (0008,0008) of what they had reconstructed from raw data: value 1
should be ORIGINAL there (PS3.3 C.7.6.1.1.2). Such a series has value 2 PRIMARY, value 3 AXIAL, and no sign of other
images that it was made of.
"""

from pydicom import Dataset

from dicomnode.analysis.series import kernels
from dicomnode.analysis.series.headers import string, strings

_IMAGE_TYPE = ["DERIVED", "PRIMARY", "AXIAL"]
#: What images have that were computed from other images (PS3.3 C.7.6.1.1.3, C.12.4).
_MADE_OF_OTHERS = ("SourceImageSequence", "DerivationDescription", "DerivationCodeSequence")
#: What further values of Image Type say of images that were computed from others.
_COMPUTED = frozenset(("MPR", "MIP", "MINIP", "AVERAGE", "AVG", "VRT", "SSD", "CSA RESAMPLED", "RESAMPLED"))


def is_original(dataset: Dataset) -> bool:
    """Tell whether a Siemens image whose Image Type begins with DERIVED, PRIMARY, AXIAL was reconstructed, not derived.

    Args:
        dataset: the image's header.
    """
    values = [value.upper() for value in strings(dataset, "ImageType")]
    if values[:3] != _IMAGE_TYPE or _COMPUTED.intersection(values[3:]):
        return False
    made_of_others = any(keyword in dataset for keyword in _MADE_OF_OTHERS)
    return kernels.vendor(string(dataset, "Manufacturer")) == "Siemens" and not made_of_others
