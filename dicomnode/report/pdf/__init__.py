"""The report as a PDF that any PACS shows: words and tables, set by Typst, encapsulated (PS3.3 A.45.1)."""
