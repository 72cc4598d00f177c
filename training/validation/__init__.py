"""A finished bundle at another site: external validation, and recalibration to the site, by way of the gate."""
