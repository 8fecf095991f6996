"""Code lists of public standards: currencies (ISO 4217), merchant categories (ISO 18245), countries (ISO 3166-1).

Reads no data. The lists come from iso4217 and pycountry but for what contracts and stored features depend on.
"""

import re
from collections.abc import Mapping

import iso4217
import pycountry

__all__ = ["CATEGORY_RANGES", "COUNTRIES", "COUNTRY_OF", "MINOR_UNITS", "category_of", "is_iban"]

_WITHDRAWN = {"BGN": 2}
"""Currencies that ISO 4217 has no more and that older payments are in, with their decimal places."""

MINOR_UNITS: Mapping[str, int] = _WITHDRAWN | {
    currency.code: currency.exponent for currency in iso4217.Currency if currency.exponent is not None
}
"""Decimal places of each currency's smallest unit, by its ISO 4217 code."""

_COUNTRIES = (
    "AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY BZ "
    "CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO "
    "FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE "
    "JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO "
    "MP MQ MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW "
    "PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM "
    "TN TO TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW"
)

COUNTRIES: tuple[str, ...] = tuple(_COUNTRIES.split())
"""Alpha-2 codes of ISO 3166-1, in alphabetical order.

Written out and not asked of a library: contracts have the list in their fingerprint and features the place in it, and
another release of a library must not change either.
"""

COUNTRY_OF: Mapping[str, str] = {code: code for code in COUNTRIES} | {
    code: country.alpha_2
    for country in pycountry.countries
    if country.alpha_2 in COUNTRIES
    for code in (country.alpha_2, country.alpha_3, country.numeric, country.numeric.lstrip("0"))
}
"""The alpha-2 code for each alpha-2, alpha-3 and numeric code, the last with and without its zeros in front."""

CATEGORY_RANGES = (
    ((3000, 3999), "travel"),  # airlines, car rental, hotels
    ((4011, 4112), "travel"),
    ((4121, 4121), "gas_transport"),  # taxis
    ((4131, 4131), "gas_transport"),
    ((4411, 4411), "travel"),
    ((4511, 4511), "travel"),
    ((4722, 4723), "travel"),
    ((4784, 4789), "gas_transport"),
    ((5172, 5172), "gas_transport"),
    ((5200, 5271), "home"),
    ((5300, 5399), "shopping_pos"),
    ((5411, 5499), "grocery_pos"),
    ((5541, 5542), "gas_transport"),
    ((5552, 5552), "gas_transport"),
    ((5641, 5641), "kids_pets"),
    ((5611, 5699), "shopping_pos"),
    ((5712, 5722), "home"),
    ((5811, 5814), "food_dining"),
    ((5912, 5912), "health_fitness"),
    ((5945, 5945), "kids_pets"),
    ((5960, 5969), "shopping_net"),  # direct marketing, by mail and net
    ((5977, 5977), "personal_care"),
    ((5995, 5995), "kids_pets"),
    ((5931, 5999), "shopping_pos"),
    ((7011, 7033), "travel"),
    ((7230, 7230), "personal_care"),
    ((7297, 7298), "personal_care"),
    ((7512, 7519), "travel"),
    ((7523, 7523), "gas_transport"),
    ((7832, 7996), "entertainment"),
    ((7997, 7997), "health_fitness"),
    ((7998, 7999), "entertainment"),
    ((8011, 8099), "health_fitness"),
    ((742, 742), "kids_pets"),  # veterinary services
)
"""Ranges of ISO 18245 merchant category codes and the packaged contract's categories; the first that fits counts."""


def category_of(code: int) -> str:
    """The packaged contract's category of a merchant category code, ``other`` where nothing fits."""
    return next((category for (low, high), category in CATEGORY_RANGES if low <= code <= high), "other")


def is_iban(text: str) -> bool:
    """Whether it is an account's number with its two check digits (ISO 13616), with or without blanks."""
    plain = text.replace(" ", "")
    if not re.fullmatch(r"[A-Z]{2}\d{2}[A-Z0-9]{10,30}", plain):
        return False
    return int("".join(str(int(each, 36)) for each in plain[4:] + plain[:4])) % 97 == 1
