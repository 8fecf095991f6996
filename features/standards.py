"""Code lists of public standards: currencies (ISO 4217) and merchant categories (ISO 18245). Reads no data."""

from collections.abc import Mapping

__all__ = ["CATEGORY_RANGES", "MINOR_UNITS", "category_of"]

_DIGITS = {
    0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
    2: (
        "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD CDF CHE CHF CHW "
        "CNY COP COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF "
        "IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK "
        "MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP "
        "SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD USN UYU UZS VED VES WST XCD XCG YER "
        "ZAR ZMW ZWG BGN"
    ),
    3: "BHD IQD JOD KWD LYD OMR TND",
    4: "CLF UYW",
}

MINOR_UNITS: Mapping[str, int] = {code: digits for digits, codes in _DIGITS.items() for code in codes.split()}
"""Decimal places of each currency's smallest unit, by its ISO 4217 code."""

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
