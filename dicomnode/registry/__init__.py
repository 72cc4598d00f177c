"""What the node has learnt of each scan, for training: under pseudonyms, with shifted dates.

record_scan, rows (a worker, after each analysis) → the catalogue → export, outcomes, forget, shadow (commands).
What the exported folder looks like, and how pseudonyms come about: `dicomnode.registry_format`.
"""
