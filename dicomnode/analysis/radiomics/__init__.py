"""PyRadiomics' features, to its own values and about a hundred times as fast: region, shape, first order, texture."""
