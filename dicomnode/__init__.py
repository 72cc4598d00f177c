"""A DICOM node that quantifies systemic sclerosis lung disease on chest CT. Research use only."""

__version__ = "0.4.0"
