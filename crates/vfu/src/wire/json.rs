//! A strict JSON reader that neither allocates nor recurses.
//!
//! It pulls tokens out of a text that has been received whole. No crate does all of this: keep integers apart from floats, let
//! the last of several equal keys win, read values of unknown type, and bound the depth, all without an allocator.
//!
//! Depth is bounded by [`MAX_DEPTH`]; each open array or object is one bit.

use crate::error::{Error, Result};

/// Deepest nesting.
pub(crate) const MAX_DEPTH: u32 = 128;

/// One value or sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Token<'a> {
    ObjectStart,
    ObjectEnd,
    ArrayStart,
    ArrayEnd,
    /// The name of an object's member.
    Key(Text<'a>),
    String(Text<'a>),
    /// A number without fraction and exponent; `None` if it does not fit.
    Integer(Option<i64>),
    /// A number with fraction or exponent.
    Float,
    Bool(bool),
    Null,
    /// The value is over, and nothing follows.
    End,
}

/// A string between its quotes, escapes and all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Text<'a>(&'a [u8]);

impl Text<'_> {
    /// Whether it means the same as `plain`, which is ASCII.
    pub(crate) fn is(&self, plain: &str) -> bool {
        let mut raw = self.0;
        for wanted in plain.bytes() {
            let (unit, rest) = match raw {
                [b'\\', b'u', a, b, c, d, rest @ ..] => match hex4([*a, *b, *c, *d]) {
                    Some(unit) => (unit, rest),
                    None => return false,
                },
                [b'\\', escape, rest @ ..] => (u16::from(unescape(*escape)), rest),
                [byte, rest @ ..] => (u16::from(*byte), rest),
                [] => return false,
            };
            if unit != u16::from(wanted) {
                return false;
            }
            raw = rest;
        }
        raw.is_empty()
    }
}

const fn unescape(escape: u8) -> u8 {
    match escape {
        b'b' => 8,
        b'f' => 12,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        other => other, // quote, backslash, slash; `Reader` has refused the rest
    }
}

fn hex4(digits: [u8; 4]) -> Option<u16> {
    let mut value = 0_u16;
    for digit in digits {
        value = value << 4 | u16::try_from(char::from(digit).to_digit(16)?).ok()?;
    }
    Some(value)
}

/// What may come next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A value; in an array that has just begun, also its end.
    Value { first: bool },
    /// A key, or in an object that has just begun, also its end.
    Key { first: bool },
    /// A comma, or the end of the array or object; at depth 0, nothing.
    After,
}

/// Reads one value and makes sure that only white space follows.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    text: &'a [u8],
    position: usize,
    depth: u32,
    /// Bit `n`: level `n` is an object.
    objects: u128,
    state: State,
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(text: &'a [u8]) -> Self {
        Self {
            text,
            position: 0,
            depth: 0,
            objects: 0,
            state: State::Value { first: false },
        }
    }

    fn error<T>(&self, what: &'static str) -> Result<T> {
        Err(Error::Json {
            offset: self.position,
            what,
        })
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.position).copied()
    }

    fn in_object(&self) -> bool {
        self.depth > 0 && self.objects >> (self.depth - 1) & 1 == 1
    }

    /// The next token.
    pub(crate) fn next(&mut self) -> Result<Token<'a>> {
        self.skip_space();
        match self.state {
            State::Value { first } => self.value(first),
            State::Key { first } => self.key(first),
            State::After => self.after(),
        }
    }

    /// Passes over the rest of a value that began with `token`.
    pub(crate) fn skip(&mut self, token: &Token<'_>) -> Result<()> {
        if !matches!(token, Token::ObjectStart | Token::ArrayStart) {
            return Ok(());
        }
        let outside = self.depth - 1;
        while self.depth > outside {
            self.next()?;
        }
        Ok(())
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.position += 1;
        }
    }

    fn after(&mut self) -> Result<Token<'a>> {
        if self.depth == 0 {
            return match self.peek() {
                None => Ok(Token::End),
                Some(_) => self.error("something follows the value"),
            };
        }
        match (self.peek(), self.in_object()) {
            (Some(b','), is_object) => {
                self.position += 1;
                self.state = if is_object {
                    State::Key { first: false }
                } else {
                    State::Value { first: false }
                };
                self.next()
            }
            (Some(b'}'), true) => Ok(self.close(Token::ObjectEnd)),
            (Some(b']'), false) => Ok(self.close(Token::ArrayEnd)),
            (_, true) => self.error("a comma or a closing brace is missing"),
            (_, false) => self.error("a comma or a closing bracket is missing"),
        }
    }

    fn open(&mut self, is_object: bool) -> Result<Token<'a>> {
        if self.depth == MAX_DEPTH {
            return self.error("nested too deeply");
        }
        let bit = 1_u128 << self.depth;
        self.objects = if is_object {
            self.objects | bit
        } else {
            self.objects & !bit
        };
        self.depth += 1;
        self.position += 1;
        self.state = if is_object {
            State::Key { first: true }
        } else {
            State::Value { first: true }
        };
        Ok(if is_object {
            Token::ObjectStart
        } else {
            Token::ArrayStart
        })
    }

    const fn close(&mut self, token: Token<'a>) -> Token<'a> {
        self.position += 1;
        self.depth -= 1;
        self.state = State::After;
        token
    }

    fn key(&mut self, first: bool) -> Result<Token<'a>> {
        match self.peek() {
            Some(b'}') if first => Ok(self.close(Token::ObjectEnd)),
            Some(b'"') => {
                let text = self.string()?;
                self.skip_space();
                if self.peek() != Some(b':') {
                    return self.error("a colon is missing");
                }
                self.position += 1;
                self.state = State::Value { first: false };
                Ok(Token::Key(text))
            }
            _ => self.error("a name in quotes is missing"),
        }
    }

    fn value(&mut self, first: bool) -> Result<Token<'a>> {
        let token = match self.peek() {
            Some(b'{') => return self.open(true),
            Some(b'[') => return self.open(false),
            Some(b']') if first => return Ok(self.close(Token::ArrayEnd)),
            Some(b'"') => Token::String(self.string()?),
            Some(b'-' | b'0'..=b'9') => self.number()?,
            Some(b't') => self.word("true", Token::Bool(true))?,
            Some(b'f') => self.word("false", Token::Bool(false))?,
            Some(b'n') => self.word("null", Token::Null)?,
            Some(_) => return self.error("this begins no value"),
            None => return self.error("a value is missing"),
        };
        self.state = State::After;
        Ok(token)
    }

    fn word(&mut self, word: &str, token: Token<'a>) -> Result<Token<'a>> {
        if !self
            .text
            .get(self.position..)
            .is_some_and(|rest| rest.starts_with(word.as_bytes()))
        {
            return self.error("this begins no value");
        }
        self.position += word.len();
        Ok(token)
    }

    fn string(&mut self) -> Result<Text<'a>> {
        self.position += 1;
        let start = self.position;
        loop {
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => {
                    self.position += 1;
                    match self.peek() {
                        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                            self.position += 1;
                        }
                        Some(b'u') => {
                            let digits = self
                                .text
                                .get(self.position + 1..)
                                .and_then(|rest| rest.first_chunk::<4>());
                            if digits.copied().and_then(hex4).is_none() {
                                return self.error("\\u needs four hexadecimal digits");
                            }
                            self.position += 5;
                        }
                        _ => return self.error("no such escape"),
                    }
                }
                Some(0..0x20) => return self.error("a control character in a string"),
                Some(_) => self.position += 1,
                None => return self.error("a closing quote is missing"),
            }
        }
        let text = self.text.get(start..self.position).unwrap_or_default();
        self.position += 1;
        Ok(Text(text))
    }

    fn digits(&mut self) -> Result<()> {
        let start = self.position;
        while let Some(b'0'..=b'9') = self.peek() {
            self.position += 1;
        }
        if self.position == start {
            self.error("a digit is missing")
        } else {
            Ok(())
        }
    }

    fn number(&mut self) -> Result<Token<'a>> {
        let start = self.position;
        if self.peek() == Some(b'-') {
            self.position += 1;
        }
        if self.peek() == Some(b'0') {
            self.position += 1;
            if let Some(b'0'..=b'9') = self.peek() {
                return self.error("a number begins with 0");
            }
        } else {
            self.digits()?;
        }
        let integer = self.text.get(start..self.position).unwrap_or_default();
        let mut is_float = false;
        if self.peek() == Some(b'.') {
            is_float = true;
            self.position += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            is_float = true;
            self.position += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.position += 1;
            }
            self.digits()?;
        }
        if is_float {
            return Ok(Token::Float);
        }
        let text = core::str::from_utf8(integer).unwrap_or_default();
        Ok(Token::Integer(text.parse().ok()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<()> {
        let mut reader = Reader::new(text.as_bytes());
        while reader.next()? != Token::End {}
        Ok(())
    }

    #[test]
    fn good_texts() {
        for text in [
            "{}",
            " [ ] ",
            "null",
            "0",
            "-0",
            "-12.5e+3",
            "1E9",
            r#""""#,
            r#"{"a":[1,{"b":null}],"c":"\u00e9\n"}"#,
            "[[],[]]",
        ] {
            check(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        }
        check(&"[".repeat(128)).unwrap_err();
        check(&format!("{}{}", "[".repeat(128), "]".repeat(128))).unwrap();
    }

    #[test]
    fn bad_texts() {
        for text in [
            "",
            " ",
            "{",
            "}",
            "[",
            "]",
            "{]",
            "[}",
            "{}{}",
            "{} x",
            "\"",
            "\"\\x\"",
            "\"\\u12g4\"",
            "\"\n\"",
            "01",
            "1.",
            ".5",
            "1e",
            "-",
            "+1",
            "tru",
            "NaN",
            "'a'",
            "[1,]",
            "[,1]",
            "[1 2]",
            r#"{"a"}"#,
            r#"{"a":}"#,
            r#"{"a":1,}"#,
            r#"{a:1}"#,
            r#"{"a":1 "b":2}"#,
            "/**/1",
            "1\0",
            &"[".repeat(129),
        ] {
            assert!(matches!(check(text), Err(Error::Json { .. })), "{text}");
        }
    }

    #[test]
    fn integers_and_floats() {
        let first = |text: &'static str| Reader::new(text.as_bytes()).next().unwrap();
        assert_eq!(first("9223372036854775807"), Token::Integer(Some(i64::MAX)));
        assert_eq!(first("9223372036854775808"), Token::Integer(None));
        assert_eq!(first("-1"), Token::Integer(Some(-1)));
        assert_eq!(first("1.0"), Token::Float);
        assert_eq!(first("1e3"), Token::Float);
    }

    #[test]
    fn escaped_names_are_equal() {
        let Token::String(text) = Reader::new(br#""\u0061b\/c""#).next().unwrap() else {
            panic!()
        };
        assert!(text.is("ab/c"));
        assert!(!text.is("ab/") && !text.is("ab/cd") && !text.is("xb/c"));
    }

    #[test]
    fn a_value_of_any_kind_can_be_skipped() {
        let mut reader = Reader::new(br#"{"a":{"b":[1,{}]},"c":2}"#);
        assert_eq!(reader.next().unwrap(), Token::ObjectStart);
        assert!(matches!(reader.next().unwrap(), Token::Key(_)));
        let token = reader.next().unwrap();
        reader.skip(&token).unwrap();
        assert!(matches!(reader.next().unwrap(), Token::Key(key) if key.is("c")));
    }
}
