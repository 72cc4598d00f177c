"""A result for systems that speak no DICOM: its structured reports, read back and put into FHIR or HL7 version 2."""
