"""DICOMweb of what the node holds (PS3.18): search, retrieve, store. The console lets in and hands over."""
