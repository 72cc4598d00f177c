"""The table `[provenance]` of a run's settings: what the registry does not say of the patients."""

from collections.abc import Mapping

from pydantic import Field

from dicomnode.errors import UsageError
from dicomnode.registry_format.provenance import Provenance
from training.toml_table import TomlTable


class ProvenanceSettings(TomlTable):
    """`[provenance]`."""

    disease: str = Field("", max_length=120, description="disease of the patients, where the registry states none")
    source: str = Field("", max_length=400, description="where the data come from, and their licence")
    sites: tuple[str, ...] = Field((), description="hospitals that the patients were scanned in")
    period: str = Field("", max_length=40, description="years of the scans, such as '2008 to 2016'")


def of_run(settings: ProvenanceSettings, about: Mapping[str, object]) -> Provenance:
    """Return what is known of the patients: from the registry, and where it is silent from the settings.

    Args:
        settings: of the run.
        about: the content of registry.toml.

    Raises:
        UsageError: the settings contradict the registry.
    """
    stated = Provenance.of(about)
    found = {}
    for name in ("disease", "source", "sites", "period"):
        own, given = getattr(stated, name), getattr(settings, name)
        if own and given and own != given:
            raise UsageError(
                f"provenance.{name}: {given!r}, but the registry states {own!r}: remove it from the settings, or "
                "correct registry.toml"
            )
        found[name] = own or given
    return Provenance(**found, dates=stated.dates)
