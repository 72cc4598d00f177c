"""The JSON Schema of `findings.json`: its structure from the records, its words from here.

Findings are written once and read for years, by scripts too: each key has its meaning and its unit, and a test holds
both against the records and against real findings.
"""

import json
from typing import Any

from pydantic import TypeAdapter

from dicomnode.analysis.findings import Findings

#: Of the schema, not of the software: raised when a key is added (second number) or loses its meaning (first).
SCHEMA_VERSION = "1.0"
#: Where the repository has it, from its root.
COMMITTED = "docs/findings.schema.json"
_DRAFT = "https://json-schema.org/draft/2020-12/schema"

#: Each key by the record that holds it: meaning, with unit.
MEANINGS: dict[str, dict[str, str]] = {
    "Findings": {
        "status": "«analysed», or «refused»: no series was suitable, and `rejected` says why.",
        "series": "The analysed series; null in a refusal.",
        "rejected": "Every series of the study, or part of one, that was not analysed.",
        "flags": "Doubts that a reader must see before the numbers.",
        "lungs": "The segmentation and its volumes; null in a refusal.",
        "quantities": "Attenuation by region: «lungs», «right», «left», thirds, rim, core, lobes.",
        "radiomics": "Texture features by region, and their settings; null where the profile computes none.",
        "risk": "Predicted risk of death; null where no bundle predicts, or none that fits.",
        "timings_s": "Wall time of each step, s.",
        "software_version": "Version of dicomnode that made the findings.",
        "input_digest": "SHA-256 (hex) of what was analysed: pixels and the attributes that were used.",
        "algorithm_digest": "SHA-256 (hex) of what analysed it: segmenter, settings, bundle.",
        "change": "Comparison with the latest prior scan; null where there is none.",
        "trend": "Prior scans of the same patient, the oldest first.",
        "surroundings_digest": "SHA-256 (hex) of what worklist and PACS added (order, doubts); empty where nothing.",
        "highest_series_number": "Highest Series Number (0020,0011) of the study's images; 0 where none has one.",
        "conditions": "What the attenuation measures depend on; null where it could not be measured.",
        "population": "How far outside the model's training population the scan lies; null: not known.",
        "revision": "Tells a result from an equal one that was replaced before; otherwise empty.",
        "refused_by": "SHA-256 (hex) of the method that refused the study; otherwise empty, and in 0.4.0 and before.",
    },
    "ChosenSeries": {
        "study_uid": "Study Instance UID (0020,000D).",
        "series_uid": "Series Instance UID (0020,000E).",
        "slices": "Number of slices.",
        "spacing_mm": "Voxel size (z, y, x), mm; z from slice positions, never from Slice Thickness.",
        "kernel": "Convolution Kernel (0018,1210) as the images state it; empty where not.",
        "why_chosen": "Why this series, in words.",
        "part": "Which part of the series, in words; empty: all of it.",
        "study_date": "Study Date (0008,0020), YYYYMMDD; empty where not stated.",
        "study_time": "Study Time (0008,0030), HHMMSS; empty where not stated.",
        "manufacturer": "Manufacturer (0008,0070).",
        "manufacturer_model": "Manufacturer's Model Name (0008,1090).",
        "kernel_family": "«lung», «medium» or «soft»; «unknown» where it cannot be told.",
        "slice_thickness_mm": "Slice Thickness (0018,0050), mm; null where not stated.",
        "contrast": "Whether the images name a contrast agent; null: not looked at (version 0.1.0).",
    },
    "RejectedSeries": {
        "series_uid": "Series Instance UID (0020,000E).",
        "modality": "Modality (0008,0060).",
        "slices": "Number of images.",
        "reasons": "Why it was not analysed; never empty.",
        "part": "Which part of the series, in words; empty: all of it.",
    },
    "Reason": {
        "code": "Stable word for scripts (docs/radiologist/flags.md).",
        "text": "For people.",
    },
    "Flag": {
        "code": "Stable word for scripts (docs/radiologist/flags.md).",
        "severity": "«info», «warning» or «error».",
        "text": "For people.",
    },
    "Lungs": {
        "segmenter": "Name of the segmenter.",
        "segmenter_version": "Version of the segmenter, or the digest of its weights.",
        "volume_ml": "Volumes of the segmented lungs, ml.",
        "family": "«network» or «morphology» (CID 7162).",
        "left_out_ml": "Volume inside the hull of the lungs, outside their segmentation, ml; null: not measured.",
    },
    "VolumeMl": {
        "total": "Both lungs, ml.",
        "left": "Left lung, ml.",
        "right": "Right lung, ml.",
    },
    "Quantities": {
        "mean_hu": "Mean attenuation, HU.",
        "sd_hu": "Standard deviation, HU.",
        "skewness": "Skewness of the histogram, no unit.",
        "kurtosis": "Kurtosis of the histogram, no unit.",
        "p05_hu": "5th percentile, HU.",
        "p15_hu": "15th percentile, HU.",
        "p50_hu": "Median, HU.",
        "p85_hu": "85th percentile, HU.",
        "p95_hu": "95th percentile, HU.",
        "haa_percent": "High-attenuation areas, -600 to -250 HU: % of the region's voxels.",
        "laa950_percent": "Low-attenuation areas, below -950 HU: % of the region's voxels.",
        "volume_ml": "Volume of the region, ml; null: voxel size not known (version 0.1.0).",
        "dense_percent": "Dense tissue, above -250 HU: % of the region's voxels; null: not measured.",
    },
    "Conditions": {
        "noise_hu": "Standard deviation of the air in the large airways, HU.",
        "air_hu": "Median of the air in the large airways, HU.",
    },
    "Radiomics": {
        "settings": "PyRadiomics' parameter file as a mapping; with `preparation` where it is not PyRadiomics' own.",
        "features": "Features by region and by PyRadiomics' name; each in its own unit (HU, mm, or none).",
    },
    "Risk": {
        "bundle": "Name of the model bundle.",
        "bundle_sha256": "SHA-256 (hex) of the bundle's manifest.",
        "intended_use": "«synthetic-demo»: made from synthetic data, never clinical; «research»: research use only.",
        "horizons": "Probabilities by horizon.",
        "version": "Version of the model bundle.",
        "interval": "What `lower` and `upper` of the horizons are, in words.",
        "slice_relevance": "Weight of each slice in the networks' answer, feet first; empty where no network looked.",
        "scan_codes": "By network, the numbers (no unit) that it remembers this scan by.",
        "flags": "Doubts about this prediction; they stand among the findings' flags too.",
        "disease": "Disease of the patients that the model was made from; empty: not stated, or phantoms.",
        "recalibrated_to": "The site that the model was recalibrated to; empty: to none.",
        "explanation": "How the bundle weighs the scan, no cause; null unless `analysis.explanation` asks for it.",
    },
    "Contribution": {
        "name": "Name of the input, such as `covariates.age_years`; «encoder»: all numbers of an encoder.",
        "value": "Value of this scan; null: not known (the training median counts), or many numbers.",
        "unit": "Unit of the value; empty: none.",
        "added": "What the input adds to the arm's linear predictor (log hazard, no unit); above 0 raises the risk.",
    },
    "HeatMap": {
        "z_mm": "LPS z of the slice's centre at the first row and column, mm.",
        "level": "Which of the slices that the networks look at, from 1, the lowest.",
        "levels": "How many slices the networks look at.",
        "attention": "Share of the slice in the networks' attention, 0 to 1; mean over the fold models.",
        "cells": "Grad-CAM by row and column, 0 to 1: share of the hottest cell of all slices.",
        "size_mm": "Height and width that the cells cover, centred on the lungs' bounding box, mm.",
    },
    "ArmExplanation": {
        "arm": "Name of the arm.",
        "weight": "Share of the arm in the ensemble, 0 to 1.",
        "models": "Number of fold models.",
        "explained": "Number of fold models that are explained; the numbers are their mean.",
        "linear_predictor": "Log hazard against the mean of the training scans, no unit; null: not linear.",
        "contributions": "What single inputs add, the largest first.",
        "others": "Number of further inputs that add something.",
        "others_sum": "What these add to the linear predictor, no unit.",
        "heat": "Where the networks see a higher risk; null for other arms.",
        "not_explained": "Which fold models are not explained, and why; empty where all are.",
    },
    "RiskExplanation": {
        "years": "Horizon of the risk that is explained, years from the scan.",
        "arms": "The arms, those of most weight first.",
    },
    "Horizon": {
        "years": "Horizon, years from the scan.",
        "probability": "Probability of death from any cause within the horizon, 0 to 1.",
        "lower": "Low end of the model spread of the probability, 0 to 1.",
        "upper": "High end of the model spread of the probability, 0 to 1.",
    },
    "PopulationDistance": {
        "score": "Distance from the training population, no unit; about 1 is its 95th percentile.",
        "limit": "Highest score that counts as inside the training population; stated by the bundle.",
        "percentile": "Share of the training patients whose score is no higher than the scan's, %.",
        "outside": "Whether the score exceeds the limit.",
        "named": "Inputs that deviate from the training population, and what is usual there; empty: none by itself.",
        "patients": "Number of training patients in the reference distribution.",
    },
    "SliceRelevance": {
        "z_mm": "LPS z of the slice's centre at the first row and column, mm.",
        "weight": "Weight of the slice in the networks' answer, 0 to 1; sums to 1 over the slices.",
    },
    "Change": {
        "prior_study_uid": "Study Instance UID of the prior scan.",
        "prior_series_uid": "Series Instance UID of the prior scan.",
        "prior_study_date": "Study Date of the prior scan, YYYYMMDD.",
        "interval_days": "Days from the prior scan to this one.",
        "measures": "Changes by measure; units as the measure's name says (`_ml`, `_hu`, `_percent`).",
        "flags": "Why prior and present scan may not be comparable.",
        "prior_input_digest": "`input_digest` of the prior findings.",
        "prior_algorithm_digest": "`algorithm_digest` of the prior findings.",
    },
    "Delta": {
        "prior": "Value of the prior scan, in the measure's unit.",
        "now": "Value of this scan, in the measure's unit.",
        "absolute": "now - prior, in the measure's unit (of percentages: points).",
        "relative_percent": "100 (now - prior) / prior, %; null for a change from 0.",
        "per_year": "`absolute` by year, in the measure's unit; null over a short interval.",
    },
    "TrendPoint": {
        "study_uid": "Study Instance UID of the prior scan.",
        "series_uid": "Series Instance UID of the prior scan.",
        "study_date": "Study Date of the prior scan, YYYYMMDD.",
        "days_before": "Days from the prior scan to this one.",
        "volume_ml": "Volume of both lungs in the prior scan, ml.",
        "haa_percent": "High-attenuation areas of both lungs in the prior scan, %; null: not measured.",
        "mean_hu": "Mean attenuation of both lungs in the prior scan, HU; null: not measured.",
        "horizons": "Predicted risk of death from the prior scan.",
        "bundle_sha256": "SHA-256 (hex) of the bundle that predicted risk from the prior scan; empty: none.",
        "doubts": "Codes of the flags by which the prior scan may not be comparable with this one.",
        "version": "What the UIDs of the prior result's objects were derived from.",
        "stays_here": "Whether the prior scan was fetched only to compare with, and its reports were not sent.",
    },
}


def build() -> dict[str, Any]:
    """Return the schema: JSON Schema 2020-12, every key with its description.

    Raises:
        KeyError: a key of the records has no meaning in `MEANINGS`.
    """
    made = TypeAdapter(Findings).json_schema(mode="serialization")
    records = {**made.pop("$defs"), "Findings": made}
    for name, record in records.items():
        for key, described in record["properties"].items():
            described.pop("title", None)
            described["description"] = MEANINGS[name][key]
        record["description"] = str(record.get("description", name)).split("\n")[0]
    top = records.pop("Findings")
    head = {
        "$schema": _DRAFT,
        "title": "findings.json",
        "$comment": f"version {SCHEMA_VERSION}; `dicomnode conformance --findings-schema` writes it",
    }
    return {**head, **{k: v for k, v in top.items() if k != "title"}, "$defs": dict(sorted(records.items()))}


def text() -> str:
    """Return the schema as the repository has it."""
    return json.dumps(build(), indent=2, ensure_ascii=False) + "\n"
