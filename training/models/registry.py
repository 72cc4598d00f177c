"""The one place where names become arms."""

from collections.abc import Mapping

from dicomnode.errors import UsageError
from training.models.arm import ARMS, DEEP_ARMS, Arm


def make_arm(name: str, settings: Mapping[str, Mapping[str, object]]) -> Arm:
    """Return the arm of a name, with its table of the settings: `radiomics`, `encoder`, `deep` for networks.

    Raises:
        UsageError: the name or a setting is unknown, or a setting's value does not fit.
    """
    if name == "radiomics":
        from training.models import (  # noqa: PLC0415  (only the arms of this run: torch takes seconds)
            tabular_arm,
        )

        return tabular_arm.make(settings.get("radiomics", {}))
    if name in DEEP_ARMS:
        from training.models.deep import arm  # noqa: PLC0415

        return arm.make(name, settings.get("deep", {}))
    if name == "encoder":
        from training.models import encoder_arm  # noqa: PLC0415

        return encoder_arm.make(settings.get("encoder", {}))
    raise UsageError(f"arms: {name!r} is unknown: use {', '.join(ARMS)}")


def check_files(name: str, settings: Mapping[str, Mapping[str, object]]) -> None:
    """See, before hours of work, that the files are there which an arm starts from; settings as in `make_arm`.

    Raises:
        UsageError: one is missing, or another one than its digest says.
    """
    if name == "encoder":
        from training.models import encoder_arm  # noqa: PLC0415

        encoder_arm.make(settings.get("encoder", {})).load()
    if name in DEEP_ARMS:
        from training.models.deep import pretrained  # noqa: PLC0415
        from training.models.deep import settings as deep_settings  # noqa: PLC0415

        if file := deep_settings.read(settings.get("deep", {})).pretrained.get(name):
            pretrained.check(name, file)
