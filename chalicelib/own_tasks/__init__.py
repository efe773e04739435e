"""Your own tasks: each module in this folder is loaded, and each `@task` in it can be submitted by its name.

from chalicelib.tasks import task

@task("greet")
def greet(name: str) -> str:
    return f"Hello, {name}"
"""
