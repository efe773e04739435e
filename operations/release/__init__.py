"""`make release` and `make version`: builds the packages, checks them, and says what to upload. It uploads nothing."""
