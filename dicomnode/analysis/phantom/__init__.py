"""A numeric chest phantom with known lungs and disease, for the demo, the synthetic registry and tests."""
