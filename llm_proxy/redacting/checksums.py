"""Checksums that tell a card number or a bank account from any other digits."""

from __future__ import annotations

import string

_DOUBLED = str.maketrans("0123456789", "0246813579")
_NO_GAPS = dict.fromkeys(map(ord, " .-\u00a0\u2009\u202f"))
_LETTERS = {ord(letter): str(n) for n, letter in enumerate(string.ascii_uppercase, 10)}

_LENGTHS = """
AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28
EE20 EG29 ES24 FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26
IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28
NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29 RO24 RS22 RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25
SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30
"""
IBAN_LENGTHS = {entry[:2]: int(entry[2:]) for entry in _LENGTHS.split()}
"""Characters of an account number by its country, as SWIFT's registry has them."""


class _Fours(dict[str, int]):
    """What four digits add to Luhn's sum where as many again, or none, follow them; computed once."""

    def __missing__(self, four: str) -> int:
        found = self[four] = sum(map(int, four[1::2])) + sum(map(int, four[::2].translate(_DOUBLED)))
        return found


_fours = _Fours()
_IN_FOURS = 19


def luhn_holds(written: str) -> bool:
    """Whether the digits of `written`, 13 to 19 of them and not all the same, pass Luhn's check."""
    if len(written) == _IN_FOURS and not written[4].isdecimal() and written[15:].isdecimal():
        fours = _fours[written[:4]] + _fours[written[5:9]] + _fours[written[10:14]] + _fours[written[15:]]
        if fours % 10:
            return False
    digits = written.translate(_NO_GAPS)
    if not 13 <= len(digits) <= 19 or not digits.isdecimal() or len(set(digits)) == 1:
        return False
    total = sum(map(int, digits[-1::-2])) + sum(map(int, digits[-2::-2].translate(_DOUBLED)))
    return total % 10 == 0


def iban_holds(written: str) -> bool:
    """Whether letters and digits of `written` are an account number of its country's length (ISO 7064)."""
    compact = "".join([char for char in written if char.isalnum()]).upper()
    if len(compact) != IBAN_LENGTHS.get(compact[:2]) or not compact.isascii():
        return False
    return int((compact[4:] + compact[:4]).translate(_LETTERS)) % 97 == 1
