"""HTTP calls to other servers: which are allowed, how they are signed."""
