"""The features of every scan, measured by the node's own code, and harmonised on training rows alone."""
