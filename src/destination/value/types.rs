//! The list of PostgreSQL's built-in types.

use super::Family;

/// One built-in type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PgType {
    /// The type's name in `pg_type`.
    pub name: &'static str,
    /// `pg_type.oid`.
    pub oid: u32,
    /// The OID of its array type; 0 when it has none.
    pub array_oid: u32,
    /// What it is to a destination (`numeric` with a precision is a [`Family::Decimal`]).
    pub family: Family,
}

const fn entry(name: &'static str, oid: u32, array_oid: u32, family: Family) -> PgType {
    PgType { name, oid, array_oid, family }
}

/// Every built-in type that a column can have; OIDs below 10 000 are the same in every PostgreSQL.
pub const PG_TYPES: &[PgType] = &[
    entry("bool", 16, 1000, Family::Boolean),
    entry("int2", 21, 1005, Family::Integer(2)),
    entry("int4", 23, 1007, Family::Integer(4)),
    entry("int8", 20, 1016, Family::Integer(8)),
    entry("oid", 26, 1028, Family::Unsigned),
    entry("xid", 28, 1011, Family::Unsigned),
    entry("cid", 29, 1012, Family::Unsigned),
    entry("xid8", 5069, 271, Family::Unsigned8),
    entry("float4", 700, 1021, Family::Float4),
    entry("float8", 701, 1022, Family::Float8),
    entry("numeric", 1700, 1231, Family::Numeric),
    entry("money", 790, 791, Family::Money),
    entry("text", 25, 1009, Family::Text),
    entry("varchar", 1043, 1015, Family::Text),
    entry("name", 19, 1003, Family::Text),
    entry("\"char\"", 18, 1002, Family::Text),
    entry("refcursor", 1790, 2201, Family::Text),
    entry("bpchar", 1042, 1014, Family::PaddedText),
    entry("bytea", 17, 1001, Family::Bytes),
    entry("date", 1082, 1182, Family::Date),
    entry("time", 1083, 1183, Family::Time),
    entry("timetz", 1266, 1270, Family::TimeTz),
    entry("timestamp", 1114, 1115, Family::Timestamp),
    entry("timestamptz", 1184, 1185, Family::TimestampTz),
    entry("interval", 1186, 1187, Family::Interval),
    entry("uuid", 2950, 2951, Family::Uuid),
    entry("json", 114, 199, Family::Json),
    entry("jsonb", 3802, 3807, Family::Jsonb),
    entry("xml", 142, 143, Family::Xml),
    entry("inet", 869, 1041, Family::Inet),
    entry("cidr", 650, 651, Family::Cidr),
    entry("macaddr", 829, 1040, Family::MacAddress),
    entry("macaddr8", 774, 775, Family::MacAddress),
    entry("bit", 1560, 1561, Family::Bits),
    entry("varbit", 1562, 1563, Family::Bits),
    entry("pg_lsn", 3220, 3221, Family::Lsn),
    entry("int4range", 3904, 3905, Family::Range),
    entry("numrange", 3906, 3907, Family::Range),
    entry("tsrange", 3908, 3909, Family::Range),
    entry("tstzrange", 3910, 3911, Family::Range),
    entry("daterange", 3912, 3913, Family::Range),
    entry("int8range", 3926, 3927, Family::Range),
    entry("int4multirange", 4451, 6150, Family::Multirange),
    entry("nummultirange", 4532, 6151, Family::Multirange),
    entry("tsmultirange", 4533, 6152, Family::Multirange),
    entry("tstzmultirange", 4534, 6153, Family::Multirange),
    entry("datemultirange", 4535, 6155, Family::Multirange),
    entry("int8multirange", 4536, 6157, Family::Multirange),
    entry("point", 600, 1017, Family::Geometric),
    entry("lseg", 601, 1018, Family::Geometric),
    entry("path", 602, 1019, Family::Geometric),
    entry("box", 603, 1020, Family::Geometric),
    entry("polygon", 604, 1027, Family::Geometric),
    entry("line", 628, 629, Family::Geometric),
    entry("circle", 718, 719, Family::Geometric),
    entry("tsvector", 3614, 3643, Family::TextSearch),
    entry("tsquery", 3615, 3645, Family::TextSearch),
    entry("gtsvector", 3642, 3644, Family::TextSearch),
    entry("tid", 27, 1010, Family::Catalogue),
    entry("int2vector", 22, 1006, Family::Catalogue),
    entry("oidvector", 30, 1013, Family::Catalogue),
    entry("regproc", 24, 1008, Family::Catalogue),
    entry("regprocedure", 2202, 2207, Family::Catalogue),
    entry("regoper", 2203, 2208, Family::Catalogue),
    entry("regoperator", 2204, 2209, Family::Catalogue),
    entry("regclass", 2205, 2210, Family::Catalogue),
    entry("regtype", 2206, 2211, Family::Catalogue),
    entry("regconfig", 3734, 3735, Family::Catalogue),
    entry("regdictionary", 3769, 3770, Family::Catalogue),
    entry("regnamespace", 4089, 4090, Family::Catalogue),
    entry("regrole", 4096, 4097, Family::Catalogue),
    entry("regcollation", 4191, 4192, Family::Catalogue),
    entry("jsonpath", 4072, 4073, Family::Catalogue),
    entry("aclitem", 1033, 1034, Family::Catalogue),
    entry("txid_snapshot", 2970, 2949, Family::Catalogue),
    entry("pg_snapshot", 5038, 5039, Family::Catalogue),
    entry("pg_node_tree", 194, 0, Family::Catalogue),
];
