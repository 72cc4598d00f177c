"""The report of a run as HTML, Markdown and JSON, with the TRIPOD+AI and CLAIM checklists."""
