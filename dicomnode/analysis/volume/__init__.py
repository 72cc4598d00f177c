"""From the chosen series to one volume in Hounsfield units: decoded, stacked, made regular where it is not."""
