"""One module a revision. A revision is never changed once it has been released."""
