"""How good out-of-fold predictions are under censoring: discrimination, calibration, net benefit, warnings."""
