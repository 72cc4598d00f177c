"""Which rule takes a study, and what is done with it. Pure: a study's facts and rules in, a decision out."""
