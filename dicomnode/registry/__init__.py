"""What the node has learnt of each scan, for training: under pseudonyms, with shifted dates.

pseudonyms → recorder (a worker, after each analysis) → export, outcomes, forget, shadow (commands).
"""
