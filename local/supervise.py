"""supervisord as a child of the runner: stops all its programs in order, and itself, when the runner is gone."""

from supervisor.supervisord import main

from local.parent import end_with_parent

if __name__ == "__main__":
    end_with_parent()
    main()
