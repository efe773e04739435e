"""HTTP calls to other servers: allow list and signature."""
