"""From received bytes to complete studies: the spool on disk, its catalogue, and the rule when a study has settled."""
