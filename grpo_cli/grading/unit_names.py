"""The complete list of units. A word that is not in it is not a unit.

A unit maps base units to their exponents: km/h is {"km": 1, "h": -1}.
"""

_PREFIXES = {
    "y": "yocto", "z": "zepto", "a": "atto", "f": "femto", "p": "pico", "n": "nano",
    "u": "micro", "m": "milli", "c": "centi", "d": "deci", "da": "deca", "h": "hecto", "k": "kilo", "M": "mega",
    "G": "giga", "T": "tera", "P": "peta", "E": "exa", "Z": "zetta", "Y": "yotta",
}  # fmt: skip

# Symbol: names. All of them also with each prefix.
_SCALED = {
    "m": "meter metre", "g": "gram gramme gm", "s": "second", "A": "ampere amp", "K": "kelvin", "mol": "mole",
    "cd": "candela", "Hz": "hertz", "N": "newton", "Pa": "pascal", "J": "joule", "W": "watt", "C": "coulomb",
    "V": "volt", "F": "farad", "ohm": "ohm", "S": "siemens", "Wb": "weber", "T": "tesla", "H": "henry henrie",
    "lm": "lumen", "lx": "lux", "Bq": "becquerel", "Gy": "gray", "Sv": "sievert", "L": "liter litre",
    "eV": "electronvolt", "B": "byte", "bit": "bit", "bar": "bar", "cal": "calorie", "pc": "parsec", "dyn": "dyne",
    "erg": "erg", "rad": "radian", "sr": "steradian", "t": "tonne", "Da": "dalton",
}  # fmt: skip

# Symbol: names, without prefixes.
_PLAIN = {
    "min": "minute mins", "h": "hour hr hrs", "day": "day d", "week": "week wk wks", "month": "month",
    "year": "year yr yrs", "decade": "decade", "century": "century centurie", "millennium": "millennium millennia",
    "s": "sec secs",
    "in": "inch inche in", "ft": "foot feet ft", "yd": "yard yd yds", "mi": "mile mi", "nmi": "nmi", "acre": "acre",
    "ha": "hectare ha", "oz": "ounce oz", "lb": "lb lbs", "pound": "pound", "ton": "ton", "stone": "stone",
    "gal": "gallon gal", "qt": "quart qt", "pt": "pint pt", "cup": "cup", "tbsp": "tablespoon tbsp",
    "tsp": "teaspoon tsp", "degree": "degree deg", "degC": "degC", "degF": "degF",
    "rpm": "rpm", "rev": "revolution rev", "atm": "atmosphere atm",
    "mmHg": "mmhg", "torr": "torr", "psi": "psi", "hp": "horsepower hp", "dB": "decibel db", "ly": "lightyear ly",
    "au": "au", "angstrom": "angstrom", "knot": "knot", "amu": "amu", "fortnight": "fortnight", "carat": "carat",
    "micron": "micron", "poise": "poise", "G": "gauss", "mM": "millimolar", "ppm": "ppm",
    "fathom": "fathom", "furlong": "furlong", "league": "league",
    "dollar": "dollar usd buck", "cent": "cent", "EUR": "euro eur", "GBP": "gbp", "JPY": "yen jpy",
    "INR": "rupee inr", "CNY": "yuan cny rmb", "RUB": "ruble rouble", "KRW": "won krw", "CHF": "franc chf",
    "CAD": "cad", "AUD": "aud", "peso": "peso", "penny": "pence", "shilling": "shilling",
}  # fmt: skip

# One word that stands for a product of units.
_COMPOUND = {
    "mph": {"mi": 1, "h": -1}, "kph": {"km": 1, "h": -1}, "kmh": {"km": 1, "h": -1}, "kmph": {"km": 1, "h": -1},
    "mpg": {"mi": 1, "gal": -1}, "cc": {"cm": 3}, "fps": {"ft": 1, "s": -1},
    "Nm": {"N": 1, "m": 1}, "Wh": {"W": 1, "h": 1}, "kWh": {"kW": 1, "h": 1}, "kwh": {"kW": 1, "h": 1},
    "MWh": {"MW": 1, "h": 1}, "mAh": {"mA": 1, "h": 1}, "unit": {}, "units": {},  # `5 units` is 5
}  # fmt: skip

CURRENCY_SIGNS = {r"\$": "dollar", "€": "EUR", "£": "GBP", "¥": "JPY", "₹": "INR", "¢": "cent", "₽": "RUB", "₩": "KRW"}

MULTIPLIERS = {
    "hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "quadrillion": 10**15,
    "dozen": 12, "dozens": 12, "lakh": 10**5, "crore": 10**7,
}  # fmt: skip

# Pairs of units that may mean the same: "pound" can be a weight or a currency.
AMBIGUOUS = frozenset(
    frozenset(pair)
    for pair in (
        ("pound", "lb"),
        ("pound", "GBP"),
        ("degree", "degC"),
        ("degree", "degF"),
        ("C", "degC"),
        ("F", "degF"),
        ("t", "ton"),
    )
)

# How many of the second unit make one of the first.
SUBUNITS = {("dollar", "cent"): 100, ("EUR", "cent"): 100, ("GBP", "penny"): 100}


def _symbols() -> dict[str, dict[str, int]]:
    table = {}
    for symbol in _SCALED:
        table[symbol] = {symbol: 1}
        for prefix in _PREFIXES:
            table[prefix + symbol] = {prefix + symbol: 1}
    for unit, names in _PLAIN.items():
        table[unit] = {unit: 1}
        table |= {name: {unit: 1} for name in names.split()}
    for word in ("as", "at", "am", "dam"):  # words, not attoseconds
        del table[word]
    table |= {"l": {"L": 1}, "ml": {"mL": 1}, "cl": {"cL": 1}, "dl": {"dL": 1}, "KB": {"kB": 1}, "Kb": {"kbit": 1}}
    table |= {f"{prefix}b": {f"{prefix}bit": 1} for prefix in "kMGT"}
    return table | _COMPOUND | {"%": {"%": 1}}


def _names() -> dict[str, dict[str, int]]:
    table = {}
    for symbol, names in _SCALED.items():
        for name in names.split():
            table[name] = {symbol: 1}
            for prefix, word in _PREFIXES.items():
                table[word + name] = {prefix + symbol: 1}
    for unit, names in _PLAIN.items():
        table |= {name: {unit: 1} for name in names.split()}
    table |= {symbol.lower(): {symbol: 1} for symbol in ("kg", "km", "cm", "mm", "kJ", "kHz", "Hz", "kW", "kPa", "Pa")}
    table |= _COMPOUND
    return table | {
        "kilohm": {"kohm": 1},
        "megohm": {"Mohm": 1},
        "ml": {"mL": 1},
        "dekameter": {"dam": 1},
        "kilo": {"kg": 1},
    }


SYMBOLS = _symbols()  # case-sensitive
NAMES = _names()  # lower case, singular
