"""The registry: the folder that training learns from, and everything its three writers share.

`dicomnode registry export`, `training cohort --dicom` and `training synthetic` write it by this package;
`training.data.registry_folder` reads it. Nothing here knows the node's catalogue, its configuration or a command.

```
registry.toml       what this is: `description`; written last, so that a folder with it is whole
scans.csv           one row a scan: `rows.ScanRow`
features.parquet    scan, quantities.<region>.<name>, radiomics.<region>.<feature>: float64, null where not measured
outcomes.csv        `rows.OUTCOME_COLUMNS`; may be missing
volumes/SCAN.npz    the lungs' voxels: `volumes`; may be missing
```

What holds in every registry of `description.FORMAT`:

- A patient is a Patient ID *and* its issuer: the same ID from two issuers, or with an issuer and without one, is two
  patients (`identity`).
- Patients and scans have pseudonyms by a secret key, which is never in the folder; each patient's dates are shifted by
  a number of days of the patient's own (`pseudonyms`). Patients that are drawn (`made_by = "synthetic"`) need neither.
- Features were measured on the whole image. What is stored of it is the box around the lungs, with -1024 HU outside of
  them: networks see the same (`analysis.risk.preprocess`), measurements would not, so none is made on it.
- Files are written whole and durably.

Format 1 said nothing of the volumes. A node's export was the same then, and is read. So is a synthetic registry, whose
volumes are whole phantoms. A registry made from DICOM files (`made_by = "training"`) is refused: see `description`.
"""
