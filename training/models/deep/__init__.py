"""The arms on images: prepared slices, augmentation, the fit on one or several processes, its checkpoints."""
