"""A DICOM node that quantifies systemic sclerosis lung disease on chest CT. Research use only."""

from dicomnode.processes import prefer_new_sqlite

__version__ = "0.5.0"

prefer_new_sqlite()
