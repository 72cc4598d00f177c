"""The DICOM conformance statement (PS3.2 annex N), written from the code and the configuration model."""
