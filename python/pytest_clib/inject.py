"""One injected failure: how it is written, read, and armed.

``FUNCTION:N`` makes the Nth call of FUNCTION in a test fail, counted from the test's own
fixtures on. After it may stand how, in any order:

- an errno such as ``:ENOMEM``; without one, the function's likeliest;
- ``:short`` or ``:short=BYTES``: it transfers that many bytes at most (1);
- ``:eof``: it returns 0, as at the end of a file or connection;
- ``N+`` instead of ``N``: that call and all later ones.

``@TEST`` at the end restricts it to tests whose node id ends in TEST, for suites whose
tests need those before them. What cannot be used is a ``ValueError`` of one line.
"""

from __future__ import annotations

import dataclasses
import errno as errnos
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import ModuleType

_FORM = re.compile(r"(?P<function>.+?):(?P<nth>\d+)(?P<later>\+?)(?P<how>(:[^:@]+)*)$")
MOST = 2**31 - 1  # no count of calls or bytes in a test comes near it
FORMS = "FUNCTION:N, FUNCTION:N:ERRNO, FUNCTION:N:short[=BYTES], FUNCTION:N:eof, or N+"


@dataclasses.dataclass(frozen=True)
class Injection:
    """One call that fails.

    Attributes:
        function: its name in the table.
        nth: which call of those that match, from 1.
        action: ``fail``, ``short`` or ``eof``.
        errno: for ``fail``; 0 for the function's likeliest.
        most: for ``short``: bytes.
        later: all later calls that match fail, too.
        stack: only calls with this stack match; 0 for all.
        test: only tests whose node id ends so; ``""`` for all.
    """

    function: str
    nth: int
    action: str = "fail"
    errno: int = 0
    most: int = 1
    later: bool = False
    stack: int = 0
    test: str = ""

    def arm(self, native: ModuleType | Any) -> int:
        """Arm it in this process, and tell the plan's number.

        Raises:
            LookupError, ValueError: the engine cannot do it; the text says why.
        """
        plan: int = native.arm(
            self.function,
            self.nth,
            action=self.action,
            errno=self.errno or None,
            value=self.most if self.action == "short" else 0,
            count=0 if self.later else 1,
            stack=self.stack or None,
        )
        return plan

    def applies(self, nodeid: str) -> bool:
        """Whether it is meant for this test."""
        return nodeid.endswith(self.test)

    def spec(self, call: int = 0, errno: int = 0, test: str = "") -> str:
        """The value of ``--clib-inject`` for it.

        Args:
            call: which call of the function it really was.
            errno: which errno it really gave.
            test: what to restrict it to.
        """
        parts = [self.function, f"{call or self.nth}{'+' if self.later else ''}"]
        if self.action == "short":
            parts.append("short" if self.most == 1 else f"short={self.most}")
        elif self.action == "eof":
            parts.append("eof")
        elif errno or self.errno:
            parts.append(errno_name(errno or self.errno))
        return ":".join(parts) + (f"@{test}" if test else "")

    def how(self, errno: int = 0) -> str:
        """In words, after the function's name."""
        again = " from then on" if self.later else ""
        if self.action == "short":
            return f"transfers {self.most} byte{'s' if self.most != 1 else ''}{again}"
        if self.action == "eof":
            return f"meets the end{again}"
        name = errno_name(errno or self.errno)
        return f"fails{f' with {name}' if name else ''}{again}"


def errno_name(number: int) -> str:
    """``ENOMEM`` for 12; the number where there is no name, and nothing for 0."""
    return errnos.errorcode.get(number, str(number)) if number else ""


def errno_number(
    native: ModuleType | Any, text: str, others: tuple[str, ...] = ()
) -> int:
    """The errno of that name, or number.

    Args:
        native: the native module.
        text: the name or number.
        others: what else could have been meant.

    Raises:
        ValueError: there is none; the text lists what is near.
    """
    if text.isdecimal() and int(text) in errnos.errorcode:
        return int(text)
    number = (
        getattr(errnos, text.upper(), None) if text.upper().startswith("E") else None
    )
    if isinstance(number, int):
        return number
    near = [
        *(native.near(text, list(others)) if native else []),
        *(
            native.near(text.upper(), sorted(errnos.errorcode.values()))
            if native
            else []
        ),
    ]
    raise ValueError(
        f"there is no errno {text!r}"
        + (f"; near it: {', '.join(near)}" if near else "; expected a name like ENOMEM")
    )


def parse(text: str, native: ModuleType | Any) -> Injection:
    """Read one value of ``--clib-inject``.

    Raises:
        ValueError: it cannot be used; the text says why.
    """
    spec, _, test = text.partition("@")
    found = _FORM.match(spec)
    if found is None:
        raise ValueError(f"expected {FORMS}")
    function, nth = found["function"], int(found["nth"])
    if not 0 < nth <= MOST:
        raise ValueError(f"calls are counted from 1, to {MOST}")
    row = native.table_row(function) if native else None
    if row is None and native is not None:
        names = [row[0] for row in native.table_rows() if row[3]]
        near = native.near(function, names)
        raise ValueError(
            f"how {function!r} fails is not known"
            + (f"; near it: {', '.join(near)}" if near else "")
        )
    made = Injection(
        row[0] if row else function, nth, later=bool(found["later"]), test=test
    )
    for part in filter(None, found["how"].split(":")):
        made = _with(made, part, native)
    _check(made, row)
    return made


def _with(made: Injection, part: str, native: ModuleType | Any) -> Injection:
    name, equals, value = part.partition("=")
    if made.action != "fail" or made.errno:
        raise ValueError(f"{part!r} is one too many: a call fails in one way")
    if name == "eof" and not equals:
        return dataclasses.replace(made, action="eof")
    if name == "short":
        if equals and not (value.isdecimal() and 0 < int(value) <= MOST):
            raise ValueError(f"{part!r}: BYTES is a number from 1 to {MOST}")
        most = int(value) if equals else 1
        return dataclasses.replace(made, action="short", most=most)
    return dataclasses.replace(made, errno=errno_number(native, part, ("short", "eof")))


def _check(made: Injection, row: Any) -> None:
    if row is None:
        return
    _, _, _, fallible, _, _, partial, reads, _ = row
    if made.action == "fail" and not fallible:
        raise ValueError(f"{made.function} cannot fail")
    if made.action == "short" and not partial:
        raise ValueError(f"{made.function} transfers no bytes, so it cannot be short")
    if made.action == "eof" and not reads:
        raise ValueError(f"{made.function} does not read, so it cannot meet an end")
