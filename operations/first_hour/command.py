"""`./paceline first-hour`: finds the account, shows what a run costs, asks, runs it, and prints the report."""

from __future__ import annotations

import fcntl
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from infra.deploy.account import Account, find_account
from infra.deploy.stages import ROOT
from infra.environment import aws_environment, environment
from operations.first_hour.dollars import dollars, minutes_ahead, usage_ahead
from operations.first_hour.errors import FirstHourError, explain, unusable_region
from operations.first_hour.measurements import MEASUREMENTS, NAMES, Measurement, Parts
from operations.first_hour.removal import Removal
from operations.first_hour.report import as_json, as_text
from operations.first_hour.run import FirstHour, deploy_parts, stoppable, unstoppable
from operations.first_hour.sizes import SIZES, Size
from operations.first_hour.stage import Signer, StageCommands, stage_environment
from operations.first_hour.usage import CountingAccount

_LOCK = ROOT / ".paceline" / "first-hour.lock"
#: Exit codes: all as expected, something else, stopped by the user before anything was made.
GOOD, BAD, DECLINED = 0, 1, 2

Say = Callable[[str], None]


def first_hour(
    size: Size | None, only: Sequence[str], json_file: Path | None, *, is_agreed: bool, remove_only: bool
) -> int:
    """Runs the first hour and prints the report; returns the exit code. Raises FirstHourError before it began.

    size: None for full on AWS and small on LocalStack. only: names of measurements; all if empty.
    """
    wanted = chosen(only)
    _require_writable(json_file)
    env = aws_environment(environment())
    with _alone():
        account = found_account(env)
        signer = Signer()
        commands = StageCommands(stage_environment(os.environ, signer.public_key), say)
        removal = Removal(account, commands, say)
        earlier = _leftovers(removal, account)
        if remove_only:
            return _removed(removal, earlier)
        size = size or (Size.SMALL if account.endpoint_url else Size.FULL)
        say(announcement(account, size, earlier))
        if not is_agreed and not agreed(input):
            return DECLINED
        counting = CountingAccount(account)
        has_stage = any(one.needs_stage for one in wanted)

        def deploy() -> Parts:
            return deploy_parts(counting, commands, signer, SIZES[size], say, has_stage=has_stage)

        report = FirstHour(counting, deploy, removal, say, time.time).run(size, wanted, earlier)
        print(as_text(report), end="", flush=True)
        if json_file:
            json_file.write_text(as_json(report))
        return GOOD if report.is_good else BAD


def say(line: str) -> None:
    """Prints progress to standard error, so that standard output is the report."""
    print(line, file=sys.stderr, flush=True)


def chosen(names: Sequence[str]) -> tuple[Measurement, ...]:
    """Returns the measurements of these names in order, all without a name. FirstHourError for another name."""
    if unknown := [name for name in names if name not in NAMES]:
        raise FirstHourError(f"there is no measurement {unknown[0]!r} - use {', '.join(NAMES)}")
    return tuple(one for one in MEASUREMENTS if not names or one.name in names)


def found_account(
    env: Mapping[str, str],
    find: Callable[[str | None], Account] = find_account,
    configured_region: Callable[[], str | None] = lambda: boto3.Session().region_name,
) -> Account:
    """Returns the account of the credentials. Raises FirstHourError with the remedy."""
    endpoint_url, region = env.get("AWS_ENDPOINT_URL"), None
    try:
        region = configured_region()
        if not region:
            raise FirstHourError("no region is configured - set AWS_DEFAULT_REGION")
        return find(endpoint_url)
    except (BotoCoreError, ClientError) as error:
        failed = str(explain("getting the caller identity", error, Account("", region or "", endpoint_url)))
        hint = unusable_region(region, _regions()) if region and not endpoint_url else None
        raise FirstHourError(f"{failed}; {hint}" if hint else failed) from error


def _regions() -> list[str]:
    session = boto3.Session()
    return [
        name for part in session.get_available_partitions() for name in session.get_available_regions("lambda", part)
    ]


def announcement(account: Account, size: Size, earlier: Sequence[str]) -> str:
    """Returns the text that the user agrees to: account, dollars, minutes, and the leftovers to remove first."""
    sizes = SIZES[size]
    cost = sum(dollars(usage_ahead(sizes)).values())
    lines = [
        f"The first hour deploys stage firsthour to {account}, measures it, and removes it again.",
        f"Sizes {size.value}: about {minutes_ahead(sizes)} minutes and ${max(cost, 0.01):.2f} at list prices.",
    ]
    if account.endpoint_url:
        lines[-1] = f"Sizes {size.value}: about {minutes_ahead(sizes)} minutes; LocalStack costs nothing."
    else:
        lines.append(
            "Lambda stops one chain of sends on purpose; AWS may report it by e-mail and on its Health Dashboard."
        )
    if earlier:
        lines.append(
            "These belong to an earlier run, which was killed or still runs elsewhere; they are removed first:"
        )
        lines += [f"  {name}" for name in earlier]
    return "\n".join(lines)


def agreed(ask: Callable[[str], str]) -> bool:
    """Returns whether the user answered yes."""
    try:
        return ask("Go on? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        raise FirstHourError("nobody can be asked here - use --yes") from None


def _require_writable(file: Path | None) -> None:
    """Raises FirstHourError for a file that can't be written, before anything is spent on its content."""
    try:
        if file:
            file.open("a").close()
    except OSError as error:
        raise FirstHourError(f"the report can't be written: {error} - name another file after --json") from error


def _leftovers(removal: Removal, account: Account) -> list[str]:
    try:
        return removal.leftovers()
    except (BotoCoreError, ClientError) as error:
        raise explain("looking for leftovers of an earlier run", error, account) from error


def _removed(removal: Removal, earlier: Sequence[str]) -> int:
    if not earlier:
        say("Nothing of a first hour is left")
        return GOOD
    for name in earlier:
        say(f"found {name}")
    with stoppable(), unstoppable(say):
        remaining = removal.remove()
    for line in remaining:
        say(f"NOT removed: {line}")
    if not remaining:
        say("Removed everything")
    return BAD if remaining else GOOD


@contextmanager
def _alone(lock: Path = _LOCK) -> Iterator[None]:
    """Refuses a second run of this checkout, which would remove the first one's stage. A killed run holds no lock."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FirstHourError("another first hour runs in this checkout - wait for its end") from None
        yield
