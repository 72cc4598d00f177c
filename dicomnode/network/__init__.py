"""The network: C-ECHO and C-STORE in both roles (DICOM PS3.4, PS3.7, PS3.8)."""
