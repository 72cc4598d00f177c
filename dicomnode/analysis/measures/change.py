"""Change since a prior scan of the same patient: differences, per cent, per year, and whether they can be compared.

Pure arithmetic on findings. The comparison is with the latest scan before this one, never with a later one.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime

from dicomnode.analysis.findings import Change, ChosenSeries, Delta, Findings, Flag
from dicomnode.words.numerals import apart, plural

#: Shorter intervals give no change per year: the scan-rescan scatter would be multiplied.
SHORTEST_FOR_A_RATE_DAYS = 90.0
DAYS_A_YEAR = 365.25
#: Attributes of `Quantities` that are followed, in the whole lungs and where disease begins.
FOLLOWED = ("haa_percent", "laa950_percent", "mean_hu", "p15_hu")
FOLLOWED_BY_REGION = ("lower_third", "rim", "lower_third_rim")
#: Lung volumes that differ by more than this were breathed in differently, or lung was lost: attenuation follows.
SAME_BREATH_PERCENT = 10.0
SAME_STEP = 1.5
#: From 17 to 23 HU %LAA-950 triples (docs/evidence/attenuation.md).
SAME_NOISE = 1.3


def studied_at(series: ChosenSeries) -> datetime | None:
    """Study Date and Time; a missing or odd time counts as midnight. None: there is no usable date."""
    date, time = series.study_date.replace(".", ""), series.study_time.replace(":", "").partition(".")[0]
    if len(date) != 8 or not date.isdecimal():
        return None
    for moment in (date + time.ljust(6, "0"), date + "000000"):
        # strptime also takes fields with fewer digits, and would read another date from a shorter text.
        if len(moment) == 14:
            with suppress(ValueError):
                return datetime.strptime(moment, "%Y%m%d%H%M%S")
    return None


def before(findings: Findings, priors: Sequence[Findings]) -> list[tuple[datetime, Findings]]:
    """Return the analysed ones of `priors` that lie before `findings`, with their moments, the oldest first.

    Findings of the same study, of the same moment or later, refused ones, and ones without a date are left out.
    """
    if findings.series is None or (now := studied_at(findings.series)) is None:
        return []
    found = [
        (then, e)
        for e in priors
        if e.series is not None
        and e.lungs is not None
        and e.series.study_uid != findings.series.study_uid
        and (then := studied_at(e.series)) is not None
        and then < now
    ]
    return sorted(found, key=lambda pair: pair[0])


def latest_before(findings: Findings, priors: Sequence[Findings]) -> Findings | None:
    """Return the latest of the analysed `priors` that lies before `findings`; None where there is none."""
    found = before(findings, priors)
    return found[-1][1] if found else None


def compare(findings: Findings, priors: Sequence[Findings]) -> Change | None:
    """Return the change since the latest prior scan.

    Args:
        findings: of this scan.
        priors: findings of other scans of the same patient, in any order. That they are the same patient's is the
            caller's to know: findings hold nothing that could tell.

    Returns:
        None where no scan lies before this one, or this one was refused.
    """
    latest = latest_before(findings, priors)
    if latest is None or findings.lungs is None:
        return None
    assert findings.series is not None
    assert latest.series is not None
    now, then = studied_at(findings.series), studied_at(latest.series)
    assert now is not None
    assert then is not None
    days = (now - then).total_seconds() / 86400
    return Change(
        prior_study_uid=latest.series.study_uid,
        prior_series_uid=latest.series.series_uid,
        prior_study_date=latest.series.study_date,
        interval_days=round(days, 3),
        measures={name: _delta(old, new, days) for name, old, new in _followed(latest, findings)},
        flags=tuple(doubts(latest, findings, days)),
        prior_input_digest=latest.input_digest,
        prior_algorithm_digest=latest.algorithm_digest,
    )


def _followed(before: Findings, after: Findings) -> Iterator[tuple[str, float, float]]:
    """(name, old, new): "volume_ml", "haa_percent", …, and of regions "rim.haa_percent"."""
    assert before.lungs is not None
    assert after.lungs is not None
    yield "volume_ml", before.lungs.volume_ml.total, after.lungs.volume_ml.total
    for region, attributes in (("lungs", FOLLOWED), *((r, ("haa_percent",)) for r in FOLLOWED_BY_REGION)):
        old, new = before.quantities.get(region), after.quantities.get(region)
        if old is not None and new is not None:
            for attribute in attributes:
                prefix = "" if region == "lungs" else f"{region}."
                yield prefix + attribute, getattr(old, attribute), getattr(new, attribute)


def _delta(old: float, new: float, days: float) -> Delta:
    absolute = new - old
    return Delta(
        prior=old,
        now=new,
        absolute=absolute,
        relative_percent=None if old == 0 else 100.0 * absolute / abs(old),
        per_year=per_year(old, new, days),
    )


def per_year(old: float, new: float, days: float) -> float | None:
    """Change a year over an interval in days; None over one too short for a rate."""
    return (new - old) * DAYS_A_YEAR / days if days >= SHORTEST_FOR_A_RATE_DAYS else None


def doubts(before: Findings, after: Findings, days: float) -> Iterator[Flag]:
    """Yield why the two scans may not be comparable.

    QIBA's lung density profile asks for the same scanner and protocol.
    """
    old, new = before.series, after.series
    assert old is not None
    assert new is not None
    if days < SHORTEST_FOR_A_RATE_DAYS:
        # Whole days: 89.6 are not «90 days (under 90)».
        short = f"Only {plural(int(days), 'day')}" if days >= 1 else "Less than a day"
        text = f"{short} between the scans (under {SHORTEST_FOR_A_RATE_DAYS:.0f}): no change per year."
        yield Flag("change-interval", "info", text)
    if "unknown" in (old.kernel_family, new.kernel_family) and old.kernel != new.kernel:
        yield Flag("change-kernel", "warning", f"The kernels may differ: was {_or(old.kernel)}, now {_or(new.kernel)}.")
    elif old.kernel_family != new.kernel_family:
        text = f"Different kernel family: was {old.kernel_family} ({_or(old.kernel)}), now {new.kernel_family} "
        yield Flag("change-kernel", "warning", f"{text}({_or(new.kernel)}). Measures with a HU threshold depend on it.")
    steps = sorted((_thickness(old), _thickness(new)))
    if steps[1] > SAME_STEP * steps[0]:
        text = f"Different slice thickness: was {_thickness(old):.2f} mm, now {_thickness(new):.2f} mm"
        yield Flag("change-thickness", "warning", f"{text}. Thick slices average dense and aerated lung.")
    yield from _doubts_of_noise(before, after)
    scanners = [f"{s.manufacturer} {s.manufacturer_model}".strip() for s in (old, new)]
    if scanners[0] != scanners[1]:
        yield Flag("change-scanner", "warning", f"Different scanner: was {_or(scanners[0])}, now {_or(scanners[1])}.")
    if None not in (old.contrast, new.contrast) and old.contrast != new.contrast:
        text = f"Only the {'present' if new.contrast else 'prior'} scan is contrast-enhanced"
        yield Flag("change-contrast", "warning", f"{text}. Contrast raises the attenuation of vessels and lung.")
    yield from _doubts_of_lungs(before, after)


def _doubts_of_noise(before: Findings, after: Findings) -> Iterator[Flag]:
    if before.conditions is None or after.conditions is None:
        return
    old, new = before.conditions.noise_hu, after.conditions.noise_hu
    if max(old, new) > SAME_NOISE * min(old, new):
        text = f"Different image noise: was {old:.0f} HU, now {new:.0f} HU"
        yield Flag("change-noise", "warning", f"{text}. %LAA-950 rises and falls with it.")


def _doubts_of_lungs(before: Findings, after: Findings) -> Iterator[Flag]:
    assert before.lungs is not None
    assert after.lungs is not None
    old_ml, new_ml = before.lungs.volume_ml.total, after.lungs.volume_ml.total
    percent = 100.0 * (new_ml - old_ml) / old_ml if old_ml else 0.0
    if abs(percent) > SAME_BREATH_PERCENT:
        differs = "+" * (percent > 0) + apart(percent, SAME_BREATH_PERCENT if percent > 0 else -SAME_BREATH_PERCENT)
        text = f"Lung volume {differs} % (was {old_ml:.0f}, now {new_ml:.0f} ml; over {SAME_BREATH_PERCENT:.0f} %)"
        yield Flag(
            "change-volume", "warning", f"{text}: different inspiration, or volume loss. Attenuation changes with it."
        )
    made = [(f.lungs.segmenter, f.lungs.segmenter_version) for f in (before, after) if f.lungs is not None]
    if made[0] != made[1]:
        text = f"Different segmentation method: was {' '.join(made[0])}, now {' '.join(made[1])}"
        yield Flag("change-segmenter", "warning", f"{text}. Part of the change may be due to the method.")
    for when, findings in (("prior", before), ("present", after)):
        errors = sorted(f.code for f in findings.flags if f.severity == "error")
        if errors:
            yield Flag(
                "change-doubtful",
                "error",
                f"The lung segmentation of the {when} scan is doubtful ({', '.join(errors)}).",
            )


def _thickness(series: ChosenSeries) -> float:
    """Slice Thickness where it is stated: a thick slice stays thick when reconstructed at small steps."""
    return max(series.slice_thickness_mm or 0.0, series.spacing_mm[0])


def _or(text: str) -> str:
    return text or "not stated"
