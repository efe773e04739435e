"""The tasks that Paceline runs: it loads each module of this folder, and deploys them with requirements.txt."""
