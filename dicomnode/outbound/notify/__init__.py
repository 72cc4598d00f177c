"""Who is told what became of a study: e-mail and signed webhook, retried until told."""
