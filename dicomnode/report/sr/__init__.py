"""The structured reports (TID 1500): a shared frame, then measurements, prior scans and risk; or the refusal."""
