"""DICOM's network protocols as SCU and the parts that both sides share; no catalogue, no configuration.

early, transport, upper_layer, waiting (incoming associations) → association, contexts, commands → find, move,
commitment, ups, mpps, stow, fhir, mllp.
"""
