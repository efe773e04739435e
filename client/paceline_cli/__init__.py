"""The command line, `./paceline`. It parses and prints; what a command does is done by the modules that it calls."""
