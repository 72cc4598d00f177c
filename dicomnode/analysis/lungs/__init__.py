"""The lungs in a volume: segmenters with and without weights, lobes, regions, and whether to believe the mask."""
