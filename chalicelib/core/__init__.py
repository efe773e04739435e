"""The rules, pure: limits, lanes, tasks, and the ports that adapters implement."""
