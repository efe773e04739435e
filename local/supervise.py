"""Runs supervisord as a child of the runner: when the runner is gone, stops its programs in order, then itself."""

from supervisor.supervisord import main

from local.parent import end_with_parent

if __name__ == "__main__":
    end_with_parent()
    main()
