"""Exports of payments as banks and public data sets write them, each made here, row by row, from a seed."""

import csv
import io
import random
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path

START = datetime(2024, 3, 1, 8)
ROWS = 400


def iban(country: str, number: int) -> str:
    """An account's number with good check digits (ISO 13616)."""
    body = f"{number:018d}"
    digits = "".join(str(int(each, 36)) for each in f"{body}{country}00")
    return f"{country}{98 - int(digits) % 97:02d}{body}"


def moment(row: int) -> datetime:
    return START + timedelta(minutes=137 * row)


def fraud(row: int) -> bool:
    return row % 50 == 7


def in_german(number: float) -> str:
    return f"{number:,.2f}".translate(str.maketrans(",.", ".,"))


def german(rng: random.Random) -> list[list[str]]:
    """A bank's umsatz export: semicolons, decimal comma, S/H, day and time apart, names and purposes beside."""
    head = [
        "Umsatz-ID", "Buchungstag", "Uhrzeit", "Valutadatum", "Auftraggeber-IBAN", "Auftraggeber", "Gegenkonto",
        "Begünstigter/Zahlungspflichtiger", "BIC", "Soll/Haben", "Buchungstext", "Verwendungszweck", "Betrag", "Währung",
        "Betrugskennzeichen", "Gemeldet am",
    ]  # fmt: skip
    rows = []
    for row in range(ROWS):
        time, account, partner = moment(row), rng.randrange(20), rng.randrange(60)
        rows.append([
            f"U{row:06d}", f"{time:%d.%m.%Y}", f"{time:%H:%M:%S}", f"{time + timedelta(days=1):%d.%m.%Y}",
            iban("DE", account + 1), f"Müller, Hans {account}", iban("DE", 1000 + partner), f"Läden & Söhne {partner}",
            rng.choice(["COBADEFFXXX", "DEUTDEFF"]), rng.choice("SSSH"),
            rng.choice(["Überweisung", "Kartenzahlung", "Dauerauftrag", "SEPA-Lastschrift"]), f"Rechnung {row}; Größe",
            in_german(rng.randrange(100, 400_000) / 100), "EUR", "J" if fraud(row) else "N",
            f"{time + timedelta(days=4):%d.%m.%Y}" if fraud(row) else "",
        ])  # fmt: skip
    return [head, *rows]


def french(rng: random.Random) -> list[list[str]]:
    """Semicolons, decimal comma, blanks between thousands, sens D/C."""
    head = [
        "N° opération", "Date de l'opération", "Date de valeur", "Compte", "Titulaire", "IBAN bénéficiaire", "Libellé",
        "Sens", "Type d'opération", "Montant", "Devise", "Fraude avérée",
    ]  # fmt: skip
    rows = []
    for row in range(ROWS):
        time = moment(row)
        rows.append([
            f"OP{row:06d}", f"{time:%d/%m/%Y %H:%M}", f"{time:%d/%m/%Y}", iban("FR", rng.randrange(1, 20)), "Durand",
            iban("FR", 1000 + rng.randrange(60)), f"Facture {row}", rng.choice("DDDC"),
            rng.choice(["Virement", "Carte", "Prélèvement"]),
            f"{rng.randrange(100, 900_000) / 100:,.2f}".replace(",", " ").replace(".", ","), "EUR",
            "oui" if fraud(row) else "non",
        ])  # fmt: skip
    return [head, *rows]


def american(rng: random.Random) -> list[list[str]]:
    """Months first, twelve hours, one amount with a sign, categories of ISO 18245."""
    head = [
        "Transaction Date", "Post Date", "Reference Number", "Account Number", "Description", "Merchant Name",
        "Merchant ID", "MCC", "Type", "Amount", "Fraud",
    ]  # fmt: skip
    rows = []
    for row in range(ROWS):
        time, merchant = moment(row), rng.randrange(60)
        rows.append([
            f"{time:%m/%d/%Y %I:%M:%S %p}", f"{time + timedelta(days=1):%m/%d/%Y}", f"24{row:09d}",
            f"{40_001_000 + rng.randrange(20)}", f"SQ *COFFEE {row}", f"Joe's Coffee, {merchant}", f"M{merchant:05d}",
            rng.choice(["5411", "5812", "5541", "3005"]), rng.choice(["Debit Card", "ACH"]),
            f"{(1 if row % 4 == 3 else -1) * rng.randrange(100, 900_000) / 100:,.2f}", "Y" if fraud(row) else "N",
        ])  # fmt: skip
    return [head, *rows]


def spanish(rng: random.Random) -> list[list[str]]:
    """Debe and haber as D and H, which elsewhere mean other things."""
    head = ["Nº operación", "Fecha", "Hora", "Cuenta", "Cuenta destino", "Concepto", "Signo", "Medio de pago", "Importe",
            "Fraude"]  # fmt: skip
    rows = []
    for row in range(ROWS):
        time = moment(row)
        rows.append([
            f"{row:08d}A", f"{time:%d/%m/%Y}", f"{time:%H:%M}", iban("ES", rng.randrange(1, 20)),
            iban("ES", 1000 + rng.randrange(60)), f"Recibo {row}", rng.choice("DDH"),
            rng.choice(["Transferencia", "Tarjeta", "Bizum"]), in_german(rng.randrange(100, 90_000) / 100),
            "S" if fraud(row) else "N",
        ])  # fmt: skip
    return [head, *rows]


def paysim(rng: random.Random) -> list[list[str]]:
    """The columns of PaySim: hours since a start, no id, a rule's flag beside the label."""
    head = ("step type amount nameOrig oldbalanceOrg newbalanceOrig nameDest oldbalanceDest newbalanceDest isFraud "
            "isFlaggedFraud").split()  # fmt: skip
    rows = []
    for row in range(ROWS):
        kind, amount = rng.choice(["PAYMENT", "TRANSFER", "CASH_OUT", "CASH_IN", "DEBIT"]), rng.lognormvariate(8, 2) + 1
        rows.append([
            str(1 + row // 8), kind, f"{amount:.2f}", f"C{rng.randrange(10**9)}", f"{3 * amount:.2f}", f"{2 * amount:.2f}",
            f"{'M' if kind == 'PAYMENT' else 'C'}{rng.randrange(10**8)}", "0.0", "0.0", str(int(fraud(row))),
            str(int(row % 200 == 7)),
        ])  # fmt: skip
    return [head, *rows]


def sparkov(rng: random.Random) -> list[list[str]]:
    """The columns of the Sparkov generator's CSV: an index without a name, two columns of time, customers' data."""
    head = (",trans_date_trans_time,cc_num,merchant,category,amt,first,last,gender,street,city,state,zip,lat,long,city_pop,"
            "job,dob,trans_num,unix_time,merch_lat,merch_long,is_fraud").split(",")  # fmt: skip
    rows = []
    for row in range(ROWS):
        time, account = datetime(2019, 1, 1) + timedelta(minutes=137 * row), rng.randrange(20)
        rows.append([
            str(row), f"{time:%Y-%m-%d %H:%M:%S}", str(2703186189652095 + 1313 * account),
            f"fraud_Rippin, Kub and Mann {rng.randrange(60)}",
            rng.choice(["misc_net", "grocery_pos", "gas_transport", "home"]), f"{rng.lognormvariate(3, 1) + 1:.2f}",
            "Jennifer", "Banks", "F", "561 Perry Cove", "Moravian Falls", "NC", "28654", "36.0788", "-81.1781", "3495",
            "Psychologist, counselling", "1988-03-09", f"{rng.getrandbits(128):032x}",
            str(int((time - datetime(1977, 1, 1)).total_seconds()) + 220_924_800), "36.011293", "-82.048315",
            str(int(fraud(row))),
        ])  # fmt: skip
    return [head, *rows]


def ibm_aml(rng: random.Random) -> list[list[str]]:
    """The columns of IBM's transactions for anti-money-laundering: two named Account, currencies in words, no id."""
    head = ("Timestamp,From Bank,Account,To Bank,Account,Amount Received,Receiving Currency,Amount Paid,Payment Currency,"
            "Payment Format,Is Laundering").split(",")  # fmt: skip
    rows = []
    for row in range(ROWS):
        time, amount = datetime(2022, 9, 1) + timedelta(minutes=137 * row), f"{rng.lognormvariate(6, 2) + 1:.2f}"
        currency = rng.choice(["US Dollar", "US Dollar", "US Dollar", "Euro", "Swiss Franc", "Yuan"])
        rows.append([
            f"{time:%Y/%m/%d %H:%M}", f"{rng.randrange(30):03d}", f"8{rng.randrange(20):08X}", f"{rng.randrange(30):03d}",
            f"8{1000 + rng.randrange(60):08X}", amount, currency, amount, currency,
            rng.choice(["Cheque", "Credit Card", "ACH", "Cash", "Reinvestment", "Wire"]), str(int(fraud(row))),
        ])  # fmt: skip
    return [head, *rows]


def written(
    make: Callable[[random.Random], list[list[str]]], path: Path, *, delimiter: str = ",", encoding: str = "utf-8"
) -> Path:
    """An export in a CSV file."""
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\n").writerows(make(random.Random(5)))
    path.write_bytes(text.getvalue().encode(encoding))
    return path


def columns_of(rows: Sequence[Sequence[str]], name: str) -> list[str]:
    """All values of a column."""
    place = rows[0].index(name)
    return [row[place] for row in rows[1:]]
