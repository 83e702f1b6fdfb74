//! SQL Server in the documentation of values.

use super::value::{Form, form};
use crate::destination::value::{DestinationColumn, Family, FamilyColumn};

/// SQL Server in the documentation.
#[derive(Clone, Copy, Debug, Default)]
pub struct SqlServerColumn;

impl DestinationColumn for SqlServerColumn {
    fn destination(&self) -> &'static str {
        "SQL Server"
    }

    fn family(&self, family: Family) -> FamilyColumn {
        const NOTHING: &str = "–";
        const YEARS: &str = "BC, years above 9999, ±`infinity`: policy";
        const NOT_UTF8: &str = "bytes that are not UTF-8 (`SQL_ASCII`): policy";
        const ALIKE: &str = "as in PostgreSQL";
        let (value, order, not_held) = match form(family) {
            Form::Boolean => ("0 or 1", ALIKE, NOTHING),
            Form::Integer(_) => ("the number", ALIKE, NOTHING),
            Form::Float | Form::Double => ("the number, bit for bit", ALIKE, "`NaN`, ±`Infinity`: policy"),
            Form::Decimal(..) => ("the number", ALIKE, "`NaN`: policy"),
            Form::Money => ("the number: `-$1,234.56` is -1234.56", ALIKE, NOTHING),
            Form::Date => ("the date", ALIKE, YEARS),
            Form::Time => ("the time", ALIKE, "`24:00:00`: policy"),
            Form::DateTime => ("date and time to the microsecond", ALIKE, YEARS),
            Form::DateTimeOffset => ("date and time in UTC (`+00:00`), to the microsecond", ALIKE, YEARS),
            Form::Bytes => ("the bytes", ALIKE, NOTHING),
            Form::Uuid => ("the UUID", "by its last six bytes first", NOTHING),
            Form::Text => match family {
                Family::Numeric | Family::Decimal { .. } => (
                    "PostgreSQL's text: every digit and the scale",
                    "as text; `CAST(c AS decimal(38,10))` to sort by size",
                    NOTHING,
                ),
                Family::Text => ("the text", "by UTF-16 code units, spaces at the end left out", NOT_UTF8),
                Family::PaddedText => ("the text with its padding", "by UTF-16 code units", NOT_UTF8),
                Family::Enum => ("the label", "by the label's code units, not by the enum's order", NOT_UTF8),
                _ => ("PostgreSQL's text", "as text", NOT_UTF8),
            },
        };
        FamilyColumn { declared: documented(family), value, order, not_held }
    }

    fn notes(&self) -> &'static str {
        NOTES
    }
}

/// The type in the documentation's table; those with parameters by an example.
fn documented(family: Family) -> &'static str {
    match form(family) {
        Form::Boolean => "bit",
        Form::Integer(2) => "smallint",
        Form::Integer(4) => "int",
        Form::Integer(_) => "bigint",
        Form::Float => "real",
        Form::Double => "float(53)",
        Form::Decimal(..) if family == Family::Unsigned8 => "decimal(20,0)",
        Form::Decimal(..) => "decimal(p,s), p ≤ 38; else nvarchar(max)",
        Form::Money => "decimal(19,2)",
        Form::Date => "date",
        Form::Time => "time(7)",
        Form::DateTime => "datetime2(6)",
        Form::DateTimeOffset => "datetimeoffset(7)",
        Form::Bytes => "varbinary(max); varbinary(255) in a key",
        Form::Uuid => "uniqueidentifier",
        Form::Text => "nvarchar(max); nvarchar(n) in a key",
    }
}

const NOTES: &str = "\
Texts of tables that pg2any makes have the collation `Latin1_General_100_BIN2`, so `'a'` and `'A'` are two keys. **Spaces at the end do not
count in SQL Server, under any collation**: `'a'` and `'a '` are one key there, and the second one that comes is refused by name. So are
`\\x01` and `\\x0100`: zeros at the end of bytes do not count either. In a key a
`varchar(n)` becomes `nvarchar(2n)` (a character may be two code units of UTF-16), at most 850; a text without a length has 255. A longer value is refused, and named. An index takes
1700 bytes, a clustered one 900: a larger key is made nonclustered.

`time` and `datetimeoffset` have seven digits, of which the last is 0, because the driver declares them so in a bulk load.

*Policy* is the setting for values that cannot be held: `error` (default) stops before the row and names table, column and
value; `null` writes NULL; `clamp` writes the nearest value that the column has (`9999-12-31`, the largest number, `23:59:59.999999`; there is
none for `NaN`) and replaces what is not UTF-8 by U+FFFD. `text` is as `error`, because a column of another type holds no text.
Each has a counter (`values_nulled`, `values_clamped`).

`pg2any_lib::destination::sqlserver::postgres_text` is the way back.
";
