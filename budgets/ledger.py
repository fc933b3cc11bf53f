"""What a ledger is asked to do, and what it answers."""

from __future__ import annotations

import msgspec

from budgets.amounts import ZERO, Amount, Unit
from budgets.limits import Bound


class Hold(msgspec.Struct, frozen=True):
    """Set `amount` (the worst case) aside under all `bounds`, or under none of them.

    `id` is new: no hold ever had it. If nobody settles the hold or renews it until `lease_until_us`, it
    expires and `floor`, at most `amount`, is charged. A counter that two bounds share is charged once.
    Answered by `Held` or `Refused`.
    """

    id: str
    bounds: tuple[Bound, ...]
    amount: Amount
    floor: Amount
    lease_until_us: int

    def __post_init__(self) -> None:
        for held, least in zip(self.amount.values(), self.floor.values(), strict=True):
            if not 0 <= least <= held:
                raise ValueError(f"hold {self.id}: its floor must lie between nothing and the amount")
        _refuse_used_up(self.id, self.floor)


class TopUp(msgspec.Struct, frozen=True):
    """Set `amount` aside on top of what the hold `id` has, under all `bounds` or none of them.

    `bounds` are those of the hold, with their limits as they are now; ValueError where they are others. What
    expiry charges stays the same. Answered by `Held`, by `Refused`, which leaves the hold as it was, or by
    `Late` where the hold is gone.
    """

    id: str
    bounds: tuple[Bound, ...]
    amount: Amount

    def __post_init__(self) -> None:
        _refuse_negative(self.id, self.amount)


class Settle(msgspec.Struct, frozen=True):
    """Replace the hold `id` by what was `used`, which is charged even where it is more than was held.

    What is freed is what the ledger holds under `id`, wherever it was taken. Answered by `Settled`, or by
    `Late` where the hold is gone.
    """

    id: str
    used: Amount

    def __post_init__(self) -> None:
        _refuse_negative(self.id, self.used)
        _refuse_used_up(self.id, self.used)


class Take(msgspec.Struct, frozen=True):
    """Use `amount` at once, under all `bounds` or none: what is known only now, tool calls and writes.

    `id` is the call's, for messages alone: taking twice counts twice. It counts where the call does, in the
    spans that `bounds` name. Answered by `Taken` or `Refused`.
    """

    id: str
    bounds: tuple[Bound, ...]
    amount: Amount

    def __post_init__(self) -> None:
        _refuse_negative(self.id, self.amount)
        _refuse_used_up(self.id, self.amount)


class Correct(msgspec.Struct, frozen=True):
    """Charge what was `used` in place of what the expiry of the hold `id` charged, or let that stand (None).

    It ends an expired hold, as `Settle` ends one that stands: whoever comes first says what it comes to.
    Answered by `Settled`, or by `Late(None)` where no expiry of it is known any more; a hold that has not
    expired stays as it is.
    """

    id: str
    used: Amount | None

    def __post_init__(self) -> None:
        if self.used is not None:
            _refuse_negative(self.id, self.used)
            _refuse_used_up(self.id, self.used)


class Renew(msgspec.Struct, frozen=True):
    """Keep the holds `ids` until `lease_until_us`; never shortens a lease. Answered by `Renewed`."""

    ids: tuple[str, ...]
    lease_until_us: int


class Expire(msgspec.Struct, frozen=True):
    """End every hold whose lease ended by `now_us`, charging its floor. Answered by `Expired`."""

    now_us: int


Op = Hold | Correct | TopUp | Settle | Take | Renew | Expire


class Left(msgspec.Struct, frozen=True):
    """The tightest limit's remainder in one unit: never below 0, and what is held is not left.

    Under a rolling window `resets_us` is when the first of what is counted leaves: some is free from then on.
    """

    unit: Unit
    limit_id: str
    maximum: int
    left: int
    resets_us: int | None


class Held(msgspec.Struct, frozen=True):
    """The hold stands. `left` is what remains after it, in requests and tokens, where these are limited."""

    left: tuple[Left, ...]


class Refused(msgspec.Struct, frozen=True):
    """Nothing was held or taken. The limit named is the tightest of those without room.

    That is the one with the least left in proportion to what was asked; of equal ones the one that resets
    last, since waiting for another would not help (a `busy` one comes after all others); then the first of
    the bounds. `asked` is 0 where a unit that is taken at the gate was used up before the call came.
    `used` and `held` are, under a rolling window, those of the fullest span that the call would count in,
    and `resets_us` is when enough of it has left for what was asked.
    """

    limit_id: str
    bound_key: str
    unit: Unit
    maximum: int
    used: int
    held: int
    asked: int
    resets_us: int | None
    left: tuple[Left, ...] = ()
    """Of a hold: what remains in requests and tokens, as `Held` would tell it."""

    @property
    def busy(self) -> bool:
        """Whether only calls in flight stand in the way: what they hold may be free in a moment."""
        return self.held > 0 and self.used + self.asked <= self.maximum


class Crossed(msgspec.Struct, frozen=True):
    """What was used has just reached a level that somebody wants to hear of: once per span of the window.

    `level` is that of `warn_at`, or the maximum itself (at least 1) of a limit that only warns. Amounts of
    `usd` are in micro-dollars. Under a rolling window `used` is that of the span which ends now; it falls as
    time goes on, so that a level is reported each time it is reached from below.
    """

    limit_id: str
    bound_key: str
    unit: Unit
    level: int
    used: int
    maximum: int


class Settled(msgspec.Struct, frozen=True):
    """The hold is gone, and what was used is charged."""

    crossed: tuple[Crossed, ...] = ()


class Late(msgspec.Struct, frozen=True):
    """The hold was gone before, and nothing was changed: each hold ends once.

    `charged` is what its expiry charged. It is None where the ledger has no trace of the hold: it was
    settled already, never taken, or expired longer ago than tombstones are kept.
    """

    charged: Amount | None


class Taken(msgspec.Struct, frozen=True):
    """The amount is charged."""

    crossed: tuple[Crossed, ...] = ()


class Renewed(msgspec.Struct, frozen=True):
    """`missing` are the ids, as given, that no longer stood for a hold and were not renewed."""

    missing: tuple[str, ...]


class ExpiredHold(msgspec.Struct, frozen=True):
    id: str
    charged: Amount


class Expired(msgspec.Struct, frozen=True):
    """The holds that ended, by id."""

    holds: tuple[ExpiredHold, ...]
    crossed: tuple[Crossed, ...] = ()


Result = Held | Refused | Settled | Late | Taken | Renewed | Expired


class Counter(msgspec.Struct, frozen=True):
    """What was used under a bound, and what is set aside."""

    used: Amount = ZERO
    held: Amount = ZERO


def _refuse_negative(id_: str, amount: Amount) -> None:
    if min(amount.values()) < 0:
        raise ValueError(f"call {id_}: no unit of what was used can be negative")


def _refuse_used_up(id_: str, amount: Amount) -> None:
    if amount.concurrency:
        raise ValueError(f"call {id_}: concurrency is held while a call runs, and never used up")
