"""Write the history of a small shop: three CSV files that look like a source system's export.

    python -m include.sample_data.generate
    python -m include.sample_data.generate --customers 100000 --orders 1000000 --out /tmp/shop

The same seed gives the same bytes on every machine and Python version: the only source of chance is
``random.Random.random()``, the one method whose sequence Python promises to keep, and all shares are integers.
Rows are written as they are drawn, so a million orders need no more memory than ten.
"""

import argparse
import csv
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from random import Random
from typing import NamedTuple, TypeVar

T = TypeVar("T")

FIRST_DAY = date(2024, 1, 1)
LAST_DAY = date(2025, 12, 31)

# fmt: off
FIRST_NAMES = (
    "Amelia", "Ben", "Chloé", "Daniel", "Elif", "Fatima", "Grace", "Håkon", "Ingrid", "José", "Kateřina", "Liam",
    "Łucja", "Mei", "Mohammed", "Noah", "Olga", "Priya", 'Robert "Bob"', "Sofía", "Søren", "Thomas", "Uche", "Yuki",
    "Zoë", "美咲",
)
LAST_NAMES = (
    "Andersson", "Brown", "Chen", "Çelik", "Dubois", "Estévez", "Fischer", "García", "Hayes, Jr.", "Ivanova", "Jones",
    "Kowalski", "Le Goff", "Müller", "Nguyễn", "O'Brien", "Okafor", "Patel", "Rossi", "Silva", "Smith", "Strauß",
    "van den Berg", "Şahin", "Young-Reyes", "田中",
)
PRICES = (400, 650, 700, 875, 900, 1050, 1195, 1200, 1450, 1800, 2400)  # cents
# fmt: on

MONTHS = (7, 7, 8, 9, 10, 11, 9, 8, 10, 11, 14, 18)  # demand: quiet after the holidays, strong before them
WEEKDAYS = (8, 8, 9, 10, 13, 15, 11)  # Monday first


class Customer(NamedTuple):
    """One row of raw_customers.csv."""

    id: int
    first_name: str
    last_name: str


class Order(NamedTuple):
    """One row of raw_orders.csv."""

    id: int
    user_id: int
    order_date: date
    status: str


class Payment(NamedTuple):
    """One row of raw_payments.csv; the amount is in cents."""

    id: int
    order_id: int
    payment_method: str
    amount: int


class Dice:
    """Chance with a sequence that never changes between Python versions."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed).random  # noqa: S311 - sample data, not a secret

    def below(self, n: int) -> int:
        """An integer from 0 to n - 1."""
        return int(self._random() * n)

    def pick(self, items: Sequence[T]) -> T:
        """One of the items."""
        return items[self.below(len(items))]

    def chance(self, percent: int) -> bool:
        """True this often."""
        return self.below(100) < percent


def customers(count: int, dice: Dice) -> Iterator[Customer]:
    """The rows of raw_customers.csv, in the order in which people signed up."""
    for customer_id in range(1, count + 1):
        yield Customer(customer_id, dice.pick(FIRST_NAMES), dice.pick(LAST_NAMES))


def orders(customer_count: int, count: int, dice: Dice) -> Iterator[Order]:
    """The rows of raw_orders.csv by date: demand doubles over the two years, with its seasons and weekends."""
    days = [FIRST_DAY + timedelta(days=n) for n in range((LAST_DAY - FIRST_DAY).days + 1)]
    weights = [
        (len(days) + n) * MONTHS[day.month - 1] * WEEKDAYS[day.weekday()] * (50 + dice.below(101))
        for n, day in enumerate(days)
    ]
    total = sum(weights)
    order_id = 0
    for day, passed in zip(days, itertools.accumulate(weights), strict=True):
        # A third of the customers were there at the start; the others sign up as time goes by.
        known = max(1, customer_count * (total + 2 * passed) // (3 * total))
        while order_id < count * passed // total:
            order_id += 1
            yield Order(order_id, _buyer(known, dice), day, _status((LAST_DAY - day).days, dice))


def _buyer(known: int, dice: Dice) -> int:
    """A customer who has signed up; a quarter of them never buy, a few buy again and again."""
    while True:
        customer_id = 1 + dice.below(known)
        keenness = customer_id * 2654435761 % 2**32 * 100 >> 32  # a fixed 0-99 for each customer; 61 for the first
        if keenness >= 25 and dice.chance(90 if keenness >= 85 else 30):
            return customer_id


def _status(age: int, dice: Dice) -> str:
    """What has become of an order after so many days."""
    if age <= 2:
        return "shipped" if dice.chance(25) else "placed"
    if age <= 9:
        return "completed" if dice.chance(25) else "shipped"
    if dice.chance(7):
        return "return_pending" if age <= 45 else "returned"
    return "completed"


def payments(order: Order, dice: Dice) -> Iterator[tuple[str, int]]:
    """Method and cents of each payment of an order; they add up to the price of what is in the basket."""
    due = sum(dice.pick(PRICES) for _ in range(1 + dice.below(4)))
    if order.status == "placed" and dice.chance(50):
        return  # nothing has arrived yet
    if dice.chance(2):
        yield "coupon", 0  # a replacement, free of charge
        return
    if dice.chance(14):
        coupon = due if dice.chance(10) else due // 5
        yield "coupon", coupon
        due -= coupon
    if due and dice.chance(15):
        gift_card = min(due, dice.pick((1000, 2500, 5000)))
        yield "gift_card", gift_card
        due -= gift_card
    method = "bank_transfer" if dice.chance(25) else "credit_card"
    if due > 1 and dice.chance(6):
        yield method, due // 2  # in two instalments
        due -= due // 2
    if due:
        yield method, due


def generate(out: Path, *, customer_count: int = 100, order_count: int = 500, seed: int = 1) -> None:
    """Write raw_customers.csv, raw_orders.csv and raw_payments.csv into a folder."""
    out.mkdir(parents=True, exist_ok=True)
    with _csv(out / "raw_customers.csv", Customer._fields) as write:
        for customer in customers(customer_count, Dice(seed)):
            write(customer)

    dice = Dice(seed + 1)
    payment_ids = itertools.count(1)
    with (
        _csv(out / "raw_orders.csv", Order._fields) as write_order,
        _csv(out / "raw_payments.csv", Payment._fields) as write_payment,
    ):
        for order in orders(customer_count, order_count, dice):
            write_order(order)
            for method, amount in payments(order, dice):
                write_payment(Payment(next(payment_ids), order.id, method, amount))


@contextmanager
def _csv(path: Path, header: Sequence[str]) -> Iterator[Callable[[Iterable[object]], object]]:
    """Open a CSV file that every system reads alike: UTF-8, a header, lines that end in LF."""
    with path.open("w", encoding="utf-8", newline="") as file:
        write = csv.writer(file, lineterminator="\n").writerow
        write(header)
        yield write


def _positive(text: str) -> int:
    """A whole number from 1."""
    if (number := int(text)) < 1:
        raise ValueError(text)
    return number


def main() -> None:
    """Read the command line and write the files."""
    parser = argparse.ArgumentParser(description="Write sample data of a shop as CSV files.")
    parser.add_argument("--customers", type=_positive, default=100, metavar="N")
    parser.add_argument("--orders", type=_positive, default=500, metavar="N")
    parser.add_argument("--seed", type=int, default=1, metavar="S")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, metavar="DIR")
    args = parser.parse_args()
    generate(args.out, customer_count=args.customers, order_count=args.orders, seed=args.seed)


if __name__ == "__main__":
    main()
