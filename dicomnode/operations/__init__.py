"""What a person asks of a node or of a folder, behind the command line: checks, jobs, analyze, explain."""
