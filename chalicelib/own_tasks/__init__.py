"""Your own tasks: Paceline imports each module in this folder; clients submit each `@task` in it by its name.

from chalicelib.tasks import task

@task("greet")
def greet(name: str) -> str:
    return f"Hello, {name}"
"""
