"""`python -m infra.cli`, which is what `./paceline` runs."""

from infra.cli.commands import app

if __name__ == "__main__":
    app(prog_name="paceline")
