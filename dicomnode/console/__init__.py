"""The console: web pages on which people look at the node and act, each in a role, by a process of its own."""
