"""Own tasks outside the project, which CI deploys with `TASKS_DIR=tests/deployed/shop_tasks`."""
