"""HTTP in and out: reads requests, writes responses, describes itself as OpenAPI."""
