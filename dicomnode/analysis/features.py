"""The measured numbers of a scan under flat names, as the registry keeps them and tabular models take them."""

from dataclasses import asdict

from dicomnode.analysis.findings import Findings


def flat(findings: Findings) -> dict[str, float]:
    """`quantities.<region>.<name>` and `radiomics.<region>.<feature>`; what was not measured is left out."""
    found = {
        f"quantities.{region}.{name}": float(value)
        for region, quantities in findings.quantities.items()
        for name, value in asdict(quantities).items()
        if value is not None
    }
    if findings.radiomics is not None:
        for region, features in findings.radiomics.features.items():
            found |= {f"radiomics.{region}.{name}": float(value) for name, value in features.items()}
    return found
