"""What the node holds: received files in the spool, results in their folder, and the catalogue that remembers both."""
