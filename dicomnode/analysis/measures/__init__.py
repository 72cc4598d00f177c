"""Numbers a radiologist knows: quantitative CT of each region, its change since a prior scan, its trend."""
