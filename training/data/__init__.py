"""What is learnt from: the registry folder, outcomes and covariates, read and checked; the cohort and its splits."""
