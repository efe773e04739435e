"""Everything that puts Paceline onto AWS or a laptop, and nothing that the app needs to serve a request."""
