"""`dicomnode demo`: a synthetic study, a small PACS, and a node between them, all on this machine."""
