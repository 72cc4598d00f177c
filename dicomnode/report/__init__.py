"""Pure encoding: findings and source headers in, DICOM datasets out."""
