//! Arrays in PostgreSQL's notation.

/// An element of an array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Element {
    /// `NULL`
    Null,
    /// A value, with quotes and backslashes undone.
    Value(Vec<u8>),
    /// A row of an array of more dimensions.
    Array(Vec<Element>),
}

/// Deeper ones PostgreSQL does not make.
const DIMENSIONS: usize = 6;

/// The elements of `{1,NULL,"a, b"}`, `{{1,2},{3,4}}` or `[0:1]={1,2}` (where counting begins is
/// left out). `delimiter` is a comma for every type but `box`, which has a semicolon.
#[must_use]
pub fn elements(text: &[u8], delimiter: u8) -> Option<Vec<Element>> {
    let text = if text.first() == Some(&b'[') {
        let bounds = text.iter().position(|byte| *byte == b'=')?;
        &text[bounds + 1..]
    } else {
        text
    };
    let mut parser = Parser { rest: text, delimiter };
    let elements = parser.array(1)?;
    parser.rest.is_empty().then_some(elements)
}

struct Parser<'a> {
    rest: &'a [u8],
    delimiter: u8,
}

impl Parser<'_> {
    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn array(&mut self, depth: usize) -> Option<Vec<Element>> {
        if self.next()? != b'{' || depth > DIMENSIONS {
            return None;
        }
        let mut elements = Vec::new();
        if self.rest.first() == Some(&b'}') {
            self.next();
            return Some(elements);
        }
        loop {
            elements.push(match self.rest.first()? {
                b'{' => Element::Array(self.array(depth + 1)?),
                b'"' => Element::Value(self.quoted()?),
                _ => self.bare()?,
            });
            match self.next()? {
                b'}' => return Some(elements),
                byte if byte == self.delimiter => {}
                _ => return None,
            }
        }
    }

    fn quoted(&mut self) -> Option<Vec<u8>> {
        self.next();
        let mut value = Vec::new();
        loop {
            match self.next()? {
                b'"' => return Some(value),
                b'\\' => value.push(self.next()?),
                byte => value.push(byte),
            }
        }
    }

    fn bare(&mut self) -> Option<Element> {
        let end = self.rest.iter().position(|byte| matches!(byte, b'}') || *byte == self.delimiter)?;
        let (value, rest) = self.rest.split_at(end);
        self.rest = rest;
        match value {
            b"" => None,
            b"NULL" => Some(Element::Null),
            value => Some(Element::Value(value.to_vec())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Element {
        Element::Value(text.as_bytes().to_vec())
    }

    #[test]
    fn arrays_are_taken_apart() {
        for (text, expected) in [
            ("{}", vec![]),
            ("{1,NULL,3}", vec![value("1"), Element::Null, value("3")]),
            (r#"{"NULL","a, b","c\"\\d",""}"#, vec![value("NULL"), value("a, b"), value("c\"\\d"), value("")]),
            ("[0:1][2:2]={{1},{2}}", vec![Element::Array(vec![value("1")]), Element::Array(vec![value("2")])]),
        ] {
            assert_eq!(elements(text.as_bytes(), b','), Some(expected), "{text}");
        }
        let boxes = elements(b"{(1,1),(0,0);(2,2),(1,1)}", b';');
        assert_eq!(boxes, Some(vec![value("(1,1),(0,0)"), value("(2,2),(1,1)")]));
        for bad in ["", "{", "{1", "{1,}", "{,1}", "1", "{1}x", "{{{{{{{1}}}}}}}", "{\"a}"] {
            assert_eq!(elements(bad.as_bytes(), b','), None, "{bad}");
        }
    }
}
