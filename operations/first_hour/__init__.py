"""The first hour on a real account: deploys a stage of its own, measures what no document says, removes everything.

It answers questions about AWS that an emulator can't: docs/production/first-hour.md has them, and what to do when an
answer is not the expected one. Nothing else imports this package.
"""
