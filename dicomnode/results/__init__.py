"""From findings to the files of a result: flags for the reader first, then SEG, structured reports, page and JSON."""
