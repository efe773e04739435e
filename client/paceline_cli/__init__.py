"""The command line `paceline`, which talks to a Paceline through the client; installed by its extra `cli`."""
