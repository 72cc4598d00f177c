"""`dicomnode serve`: a supervisor that starts receivers and workers, and the clock that does what is due."""
