"""`make demo`: bursts for a handful of users, watched live, with the audit and a picture at the end."""
