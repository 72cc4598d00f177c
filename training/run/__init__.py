"""A run: validated settings in, steps that survive a kill, and the record that is needed to repeat it."""
