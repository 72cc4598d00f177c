"""The risk of death from a model bundle: manifest and seal, golden case, preprocessing, models, ensemble."""
