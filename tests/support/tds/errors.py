"""What the stand-in says when it cannot or will not answer."""

from __future__ import annotations

OUTSIDE = 40000
"""Number of the error for a statement that SQL Server may well understand, but the stand-in does not answer."""


class SqlError(Exception):
    """An error as SQL Server sends it: number, message, severity."""

    def __init__(self, number: int, message: str, severity: int = 16) -> None:
        super().__init__(message)
        self.number = number
        self.severity = severity


def refusal(what: str) -> SqlError:
    """The error for a construct outside the subset."""
    return SqlError(OUTSIDE, f"TDS stand-in: {what}: outside the subset that is answered as SQL Server would")


DEADLOCK = SqlError(
    1205,
    "Transaction (Process ID 51) was deadlocked on lock resources with another process and has been chosen as the"
    " deadlock victim. Rerun the transaction.",
    13,
)
DENIED = SqlError(229, "The SELECT permission was denied on the object 't', database 'shop', schema 'dbo'.", 14)
