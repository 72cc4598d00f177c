"""A DICOM node that reads systemic-sclerosis lung disease from chest CT. Research use only."""

__version__ = "0.1.0"
