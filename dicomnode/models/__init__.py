"""Which method a worker applies: segmenter and bundle as configured, checked before use, renewed without a restart."""
