"""What the arms of a run look at: Shapley values of measured numbers, heat maps of networks."""
