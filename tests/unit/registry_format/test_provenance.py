"""Whose disease a registry is of: what it states, what is left open, and beside whom the study's results may stand."""

from pathlib import Path

import pytest

from dicomnode.errors import UsageError
from dicomnode.registry_format.description import read_description, write_description
from dicomnode.registry_format.provenance import Provenance
from training.run.provenance_settings import ProvenanceSettings, of_run


@pytest.mark.parametrize(
    ("disease", "same"),
    [
        ("systemic sclerosis", True),
        ("Systemic Sclerosis (SSc-ILD)", False),
        ("SSc-ILD", True),
        ("systemic sclerosis-associated interstitial lung disease", True),
        ("no systemic sclerosis", False),
        ("lung cancer; systemic sclerosis excluded", False),
        ("non-small cell lung cancer", False),
        ("", False),
    ],
)
def test_the_study_is_of_systemic_sclerosis_alone(disease: str, same: bool) -> None:
    assert Provenance(disease).systemic_sclerosis == same


def test_phantoms_imitate_it_and_an_older_registry_states_nothing() -> None:
    assert Provenance.of({"made_by": "synthetic"}).systemic_sclerosis
    old = Provenance.of({"made_by": "node"})
    assert not old.systemic_sclerosis and dict(old.lines)["Disease"] == "not stated"


def test_what_is_stated_is_read_again_and_must_fit(tmp_path: Path) -> None:
    write_description(tmp_path, "import", [], "", {"disease": "asthma", "sites": ["A", "B"]})
    assert Provenance.of(read_description(tmp_path)).sites == ("A", "B")
    (tmp_path / "registry.toml").write_text('format = 2\nmade_by = "import"\nsites = "A"\n')
    with pytest.raises(UsageError, match="sites is 'A': write a list of texts"):
        read_description(tmp_path)
    (tmp_path / "registry.toml").write_text('format = 2\nmade_by = "import"\ndisease = 3\n')
    with pytest.raises(UsageError, match="disease is 3: write a text in quotes"):
        read_description(tmp_path)


def test_settings_fill_a_gap_and_do_not_contradict() -> None:
    about = {"made_by": "import", "disease": "asthma"}
    assert of_run(ProvenanceSettings(source="a study"), about).source == "a study"
    with pytest.raises(UsageError, match=r"provenance\.disease: 'COPD', but the registry states 'asthma'"):
        of_run(ProvenanceSettings(disease="COPD"), about)
