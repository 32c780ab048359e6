//! The VERSION message: what the client says about itself, and our answer.
//!
//! Unknown keys are ignored at every level, the last of several equal keys wins, numbers have to be integers. Our answer
//! offers `write_multiple` only to clients that do, since some warn about what they do not know.

#![forbid(unsafe_code)]

use core::fmt::{self, Write};

use crate::error::{Error, Result};
use crate::transport::Limits;
use crate::wire::json::{Reader, Text, Token};
use crate::wire::{CLIENT_MAX_FDS, MAX_DATA, MAX_DATA_U32, SERVER_MAX_FDS};

/// The version of the protocol that we speak.
pub(crate) const MAJOR: u16 = 0;
/// Its minor number.
pub(crate) const MINOR: u16 = 2;

/// Bytes of the two numbers.
const NUMBERS: usize = 4;
/// Longest answer.
pub(crate) const MAX_REPLY: usize = 256;

/// What a client said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Client {
    pub(crate) minor: u16,
    pub(crate) limits: Limits,
    /// It wants a second socket for our commands, and can take a descriptor.
    pub(crate) twin: bool,
}

/// What we can do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Server {
    /// The device can be migrated: its page size.
    pub(crate) migration: Option<u64>,
    /// Descriptors can be passed.
    pub(crate) socket: bool,
}

/// Reads the payload of a VERSION message.
pub(crate) fn parse(payload: &[u8], server: Server) -> Result<Client> {
    let Some((numbers, text)) = payload.split_first_chunk::<NUMBERS>() else {
        return Err(Error::Version {
            what: "shorter than its two numbers",
        });
    };
    let [a, b, c, d] = *numbers;
    if u16::from_le_bytes([a, b]) != MAJOR {
        return Err(Error::Version {
            what: "the major number is not 0",
        });
    }
    let minor = u16::from_le_bytes([c, d]);
    let mut said = Said::default();
    if let Some((last, text)) = text.split_last() {
        if *last != 0 {
            return Err(Error::Version {
                what: "the text does not end in a NUL byte",
            });
        }
        said.read(text)?;
    }
    said.judge(minor, server)
}

/// Keys as they were found.
#[derive(Debug, Default)]
struct Said {
    max_fds: Option<i64>,
    max_data: Option<i64>,
    page_size: i64,
    twin: bool,
    write_multiple: bool,
}

impl Said {
    fn read(&mut self, text: &[u8]) -> Result<()> {
        if core::str::from_utf8(text).is_err() {
            return Err(Error::Version {
                what: "the text is not UTF-8",
            });
        }
        let mut reader = Reader::new(text);
        match reader.next()? {
            Token::Null => {
                return Err(Error::Version {
                    what: "the text is null",
                });
            }
            Token::ObjectStart => members(&mut reader, |reader, key, value| {
                if !key.is("capabilities") {
                    return reader.skip(&value);
                }
                *self = Self::default(); // the last one wins
                object(&value, "capabilities is not an object")?;
                members(reader, |reader, key, value| {
                    self.capability(reader, key, &value)
                })
            })?,
            other => reader.skip(&other)?, // taken for an empty object
        }
        reader.next().map(|_| ()) // the end, or an error
    }

    fn capability(
        &mut self,
        reader: &mut Reader<'_>,
        key: Text<'_>,
        value: &Token<'_>,
    ) -> Result<()> {
        if key.is("max_msg_fds") {
            self.max_fds = Some(integer(value, "max_msg_fds is not an integer")?);
        } else if key.is("max_data_xfer_size") {
            self.max_data = Some(integer(value, "max_data_xfer_size is not an integer")?);
        } else if key.is("migration") {
            object(value, "migration is not an object")?;
            self.page_size = 0;
            members(reader, |reader, key, value| {
                if !key.is("pgsize") {
                    return reader.skip(&value);
                }
                self.page_size = integer(&value, "migration.pgsize is not an integer")?;
                Ok(())
            })?;
        } else if key.is("twin_socket") {
            object(value, "twin_socket is not an object")?;
            self.twin = false;
            members(reader, |reader, key, value| {
                if !key.is("supported") {
                    return reader.skip(&value);
                }
                let Token::Bool(supported) = value else {
                    return Err(Error::Version {
                        what: "twin_socket.supported is not true or false",
                    });
                };
                self.twin = supported;
                Ok(())
            })?;
        } else if key.is("write_multiple") {
            self.write_multiple = *value == Token::Bool(true);
            reader.skip(value)?;
        } else {
            reader.skip(value)?;
        }
        Ok(())
    }

    fn judge(&self, minor: u16, server: Server) -> Result<Client> {
        if let Some(page_size) = server.migration
            && self.page_size != 0
            && u64::try_from(self.page_size) != Ok(page_size)
        {
            return Err(Error::Version {
                what: "migration.pgsize is not the page size of this system",
            });
        }
        let max_fds = self.max_fds.unwrap_or(1);
        let refused = Error::Version {
            what: "max_msg_fds is not between 0 and 1024",
        };
        let max_fds = u16::try_from(max_fds).map_err(|_| refused)?;
        if max_fds > CLIENT_MAX_FDS {
            return Err(refused);
        }
        let max_data = self.max_data.unwrap_or(i64::from(MAX_DATA_U32));
        if max_data <= 0 {
            return Err(Error::Version {
                what: "max_data_xfer_size is not above 0",
            });
        }
        Ok(Client {
            minor: minor.min(MINOR),
            limits: Limits {
                max_data: u32::try_from(max_data)
                    .unwrap_or(u32::MAX)
                    .min(MAX_DATA_U32),
                max_fds: if server.socket { max_fds.into() } else { 0 },
                write_multiple: self.write_multiple,
            },
            twin: self.twin && max_fds > 0 && server.socket,
        })
    }
}

/// Calls `each` for every member of an object that has begun; it takes the rest of the value.
fn members<'a>(
    reader: &mut Reader<'a>,
    mut each: impl FnMut(&mut Reader<'a>, Text<'a>, Token<'a>) -> Result<()>,
) -> Result<()> {
    loop {
        match reader.next()? {
            Token::Key(key) => {
                let value = reader.next()?;
                each(reader, key, value)?;
            }
            _ => return Ok(()), // the end of the object: nothing else can come
        }
    }
}

fn object(value: &Token<'_>, what: &'static str) -> Result<()> {
    if *value == Token::ObjectStart {
        Ok(())
    } else {
        Err(Error::Version { what })
    }
}

/// An integer; one that does not fit is out of every range.
fn integer(value: &Token<'_>, what: &'static str) -> Result<i64> {
    match value {
        Token::Integer(value) => Ok(value.unwrap_or(i64::MAX)),
        _ => Err(Error::Version { what }),
    }
}

/// Writes our answer and returns its length.
pub(crate) fn reply(client: &Client, server: Server, out: &mut [u8; MAX_REPLY]) -> usize {
    out[0..2].copy_from_slice(&MAJOR.to_le_bytes());
    out[2..4].copy_from_slice(&client.minor.to_le_bytes());
    let mut text = Cursor {
        bytes: out,
        length: NUMBERS,
    };
    let _ = text.write_reply(client, server); // MAX_REPLY is enough, see the test
    text.length + 1 // the NUL byte
}

struct Cursor<'a> {
    bytes: &'a mut [u8; MAX_REPLY],
    length: usize,
}

impl Cursor<'_> {
    fn write_reply(&mut self, client: &Client, server: Server) -> fmt::Result {
        write!(
            self,
            "{{\"capabilities\":{{\"max_msg_fds\":{SERVER_MAX_FDS},\"max_data_xfer_size\":{MAX_DATA}"
        )?;
        if let Some(page_size) = server.migration {
            write!(self, ",\"migration\":{{\"pgsize\":{page_size}}}")?;
        }
        if client.twin {
            self.write_str(",\"twin_socket\":{\"supported\":true,\"fd_index\":0}")?;
        }
        if client.limits.write_multiple {
            self.write_str(",\"write_multiple\":true")?;
        }
        self.write_str("}}")
    }
}

impl Write for Cursor<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.length + text.len();
        // the last byte stays the NUL
        let place = self.bytes[..MAX_REPLY - 1]
            .get_mut(self.length..end)
            .ok_or(fmt::Error)?;
        place.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: Server = Server {
        migration: Some(4096),
        socket: true,
    };

    fn client(text: &str) -> Result<Client> {
        let mut payload = vec![0, 0, 1, 0];
        payload.extend_from_slice(text.as_bytes());
        payload.push(0);
        parse(&payload, SERVER)
    }

    fn accepts(text: &str) -> Client {
        client(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn without_text_the_defaults_hold() {
        let client = parse(&[0, 0, 7, 0], SERVER).unwrap();
        assert_eq!(
            (
                client.minor,
                client.limits.max_fds,
                client.limits,
                client.twin
            ),
            (2, 1, Limits::default(), false)
        );
        assert_eq!(client.limits.max_data, 1 << 20);
    }

    #[test]
    fn short_and_strange_numbers() {
        for payload in [
            &[][..],
            &[0, 0, 0],
            &[1, 0, 0, 0],
            &[0, 0, 0, 0, b'{', b'}'],
        ] {
            assert!(parse(payload, SERVER).is_err(), "{payload:?}");
        }
    }

    #[test]
    fn what_qemu_sends() {
        let client = accepts(
            r#"{"capabilities": {"pgsizes": 4096, "max_msg_fds": 16, "max_dma_maps": 65535, "max_data_xfer_size": 1048576,
            "migration": {"max_bitmap_size": 268435456, "pgsize": 4096}, "write_multiple": true}}"#,
        );
        assert_eq!(
            (client.limits.max_fds, client.limits, client.twin),
            (
                16,
                Limits {
                    max_data: 1 << 20,
                    max_fds: 16,
                    write_multiple: true
                },
                false
            )
        );
    }

    #[test]
    fn types_are_checked() {
        for text in [
            "null",
            r#"{"capabilities":null}"#,
            r#"{"capabilities":"x"}"#,
            r#"{"capabilities":[]}"#,
            r#"{"capabilities":{"max_msg_fds":"1"}}"#,
            r#"{"capabilities":{"max_msg_fds":1.0}}"#,
            r#"{"capabilities":{"max_msg_fds":1e3}}"#,
            r#"{"capabilities":{"max_msg_fds":true}}"#,
            r#"{"capabilities":{"max_msg_fds":null}}"#,
            r#"{"capabilities":{"max_msg_fds":-1}}"#,
            r#"{"capabilities":{"max_msg_fds":1025}}"#,
            r#"{"capabilities":{"max_msg_fds":4294967296}}"#,
            r#"{"capabilities":{"max_msg_fds":99999999999999999999}}"#,
            r#"{"capabilities":{"max_data_xfer_size":0}}"#,
            r#"{"capabilities":{"max_data_xfer_size":-1}}"#,
            r#"{"capabilities":{"max_data_xfer_size":[]}}"#,
            r#"{"capabilities":{"migration":"x"}}"#,
            r#"{"capabilities":{"migration":{"pgsize":"x"}}}"#,
            r#"{"capabilities":{"migration":{"pgsize":4095}}}"#,
            r#"{"capabilities":{"migration":{"pgsize":4096.0}}}"#,
            r#"{"capabilities":{"twin_socket":true}}"#,
            r#"{"capabilities":{"twin_socket":{"supported":1}}}"#,
            r#"{"capabilities":{}} trailing"#,
            "{",
            "\"",
            "",
        ] {
            assert!(client(text).is_err(), "{text}");
        }
    }

    #[test]
    fn odd_but_good() {
        for text in [
            "[]",
            "1",
            "\"x\"",
            "{}",
            r#"{"other":{"capabilities":null}}"#,
            r#"{"capabilities":{"migration":{"pgsize":0}}}"#,
        ] {
            assert_eq!(accepts(text).limits, Limits::default(), "{text}");
        }
        assert_eq!(
            accepts(r#"{"capabilities":{"max_msg_fds":2,"max_msg_fds":3}}"#)
                .limits
                .max_fds,
            3
        );
        assert_eq!(
            accepts(r#"{"capabilities":{"max_msg_fds":2},"capabilities":{}}"#)
                .limits
                .max_fds,
            1
        );
        assert_eq!(
            accepts(r#"{"capabilities":{"max_data_xfer_size":4}}"#)
                .limits
                .max_data,
            4
        );
        assert_eq!(
            accepts(r#"{"capabilities":{"max_data_xfer_size":4294967300}}"#)
                .limits
                .max_data,
            1 << 20
        );
        assert_eq!(
            accepts(r#"{"\u0063apabilities":{"max_msg_fds":2}}"#)
                .limits
                .max_fds,
            2
        );
    }

    #[test]
    fn a_twin_needs_descriptors() {
        assert!(accepts(r#"{"capabilities":{"twin_socket":{"supported":true}}}"#).twin);
        assert!(!accepts(r#"{"capabilities":{"twin_socket":{"supported":false}}}"#).twin);
        assert!(
            !accepts(r#"{"capabilities":{"twin_socket":{"supported":true},"max_msg_fds":0}}"#).twin
        );
    }

    #[test]
    fn a_megabyte_of_text() {
        let text = format!(
            r#"{{"x":"{}","capabilities":{{"max_msg_fds":5}}}}"#,
            "y".repeat(1 << 20)
        );
        assert_eq!(accepts(&text).limits.max_fds, 5);
    }

    #[test]
    fn the_longest_reply_fits() {
        let mut out = [0; MAX_REPLY];
        let client = Client {
            minor: 2,
            limits: Limits {
                max_data: 1,
                max_fds: 1,
                write_multiple: true,
            },
            twin: true,
        };
        let server = Server {
            migration: Some(u64::MAX),
            socket: true,
        };
        let length = reply(&client, server, &mut out);
        let text = core::str::from_utf8(&out[4..length - 1]).unwrap();
        assert_eq!(
            text,
            "{\"capabilities\":{\"max_msg_fds\":8,\"max_data_xfer_size\":1048576,\
             \"migration\":{\"pgsize\":18446744073709551615},\
             \"twin_socket\":{\"supported\":true,\"fd_index\":0},\"write_multiple\":true}}"
        );
        assert_eq!(out[length - 1], 0);
    }
}
