//! Register values as a text: what people write, tools print, and an approval is made from.
//!
//! A line is a register, then `=` or `:` and what it holds, or `+` and a digest that is measured into it next, so that an
//! event log can be replayed. A register that was given no value starts as zeros. `#` begins a comment. The output of
//! `tpm2_pcrread sha256:…` is such a text.

use crate::pcr::{PCR_BYTES, Pcr, PcrValues, SelectionError, predict};
use crate::quote::NONCE_BYTES;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Lines that are read at most: event logs have some hundred entries.
const LINES_MAX: usize = 10_000;

/// Why a text gives no register values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistersError {
    /// A line that is none of these.
    #[error(
        "line {line}: expected a register, then `=` and its value or `+` and a measured digest (64 hexadecimal digits)"
    )]
    Line {
        /// Its number, from 1.
        line: usize,
    },
    /// A value is given to a register that has one.
    #[error("line {line}: register {register} has a value already")]
    Twice {
        /// Its number, from 1.
        line: usize,
        /// The register.
        register: u8,
    },
    /// Values of another bank.
    #[error("line {line}: {bank} is another bank; the registers of sha256 count")]
    Bank {
        /// Its number, from 1.
        line: usize,
        /// The bank.
        bank: String,
    },
    /// Too many lines.
    #[error("more than {LINES_MAX} lines")]
    TooLong,
    /// No register, or one that does not exist.
    #[error(transparent)]
    Selection(#[from] SelectionError),
}

/// Reads register values.
///
/// # Errors
/// [`RegistersError`].
pub fn registers_from_text(text: &str) -> Result<PcrValues, RegistersError> {
    let mut values: BTreeMap<u8, [u8; PCR_BYTES]> = BTreeMap::new();
    for (number, line) in text.lines().enumerate() {
        if number >= LINES_MAX {
            return Err(RegistersError::TooLong);
        }
        let number = number + 1;
        let line = line.split('#').next().unwrap_or_default().trim();
        let malformed = || RegistersError::Line { line: number };
        if line.is_empty() {
            continue;
        }
        // The heading of a bank.
        if let Some(bank) = line.strip_suffix(':') {
            match bank.trim() {
                "sha256" => continue,
                bank if bank.starts_with("sha") || bank.starts_with("sm3") => {
                    // What is printed stays short, whatever the file holds.
                    return Err(RegistersError::Bank { line: number, bank: bank.chars().take(16).collect() });
                }
                _ => return Err(malformed()),
            }
        }
        let at = line.find(['=', ':', '+']).ok_or_else(malformed)?;
        let (register, rest) = line.split_at(at);
        let register: u8 = register.trim().parse().map_err(|_| malformed())?;
        let (sign, digits) = rest.split_at(1);
        let digest = digest(digits.trim()).ok_or_else(malformed)?;
        match (sign, values.get(&register)) {
            ("+", value) => {
                let value = predict(value.copied().unwrap_or_default(), &[digest]);
                values.insert(register, value);
            }
            (_, None) => {
                values.insert(register, digest);
            }
            (_, Some(_)) => return Err(RegistersError::Twice { line: number, register }),
        }
    }
    let pcrs = values.into_iter().map(|(index, value)| Pcr { index, value });
    Ok(PcrValues::new(pcrs.collect())?)
}

/// The text that [`registers_from_text`] reads as these values.
#[must_use]
pub fn registers_to_text(values: &PcrValues) -> String {
    let mut text = String::new();
    for pcr in values.pcrs() {
        // Writing to a String cannot fail.
        let _ = write!(text, "{} = ", pcr.index);
        for byte in pcr.value {
            let _ = write!(text, "{byte:02x}");
        }
        text.push('\n');
    }
    text
}

/// A verifier's nonce from its hexadecimal digits.
#[must_use]
pub fn nonce_from_hex(digits: &str) -> Option<[u8; NONCE_BYTES]> {
    digest(digits)
}

fn digest(digits: &str) -> Option<[u8; PCR_BYTES]> {
    let digits = digits.strip_prefix("0x").unwrap_or(digits).as_bytes();
    if digits.len() != 2 * PCR_BYTES {
        return None;
    }
    let nibble = |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut bytes = [0; PCR_BYTES];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hex(byte: u8) -> String {
        format!("{byte:02x}").repeat(PCR_BYTES)
    }

    #[test]
    fn values_and_event_logs_are_read() {
        let pcr = |index, value| Pcr { index, value };
        let held =
            registers_from_text(&format!("# next image\n7 = {}\n\n11={} # kernel\n", hex(7), hex(0xAB)));
        let expected = PcrValues::new(vec![pcr(7, [7; 32]), pcr(11, [0xAB; 32])]).unwrap();
        assert_eq!(held.as_ref(), Ok(&expected));
        assert_eq!(registers_from_text(&registers_to_text(&expected)).as_ref(), Ok(&expected));
        let printed = format!("  sha256:\n    7 : 0x{}\n    11: 0x{}\n", hex(7), hex(0xAB).to_uppercase());
        assert_eq!(registers_from_text(&printed).as_ref(), Ok(&expected));
        // An event log: one register from zeros, one from where it stands.
        let replayed =
            registers_from_text(&format!("11 + {}\n7 = {}\n11 + {}\n7 + {}", hex(1), hex(9), hex(2), hex(3)));
        let expected = PcrValues::new(vec![
            pcr(7, predict([9; 32], &[[3; 32]])),
            pcr(11, predict([0; 32], &[[1; 32], [2; 32]])),
        ]);
        assert_eq!(replayed, Ok(expected.unwrap()));
    }

    #[test]
    fn what_is_not_understood_is_refused_with_its_line() {
        let good = format!("7 = {}\n", hex(7));
        for bad in ["7", "x = 1", "7 = 12", "= 1", "8 - 1", &format!("8 = {}0", hex(1)), "300 = 1", "8 = zz"]
        {
            assert_eq!(
                registers_from_text(&format!("{good}{bad}")),
                Err(RegistersError::Line { line: 2 }),
                "{bad}"
            );
        }
        assert_eq!(
            registers_from_text(&format!("{good}{good}")),
            Err(RegistersError::Twice { line: 2, register: 7 })
        );
        let late = format!("7 + {}\n{good}", hex(1));
        assert_eq!(registers_from_text(&late), Err(RegistersError::Twice { line: 2, register: 7 }));
        assert!(matches!(registers_from_text("sha1:\n"), Err(RegistersError::Bank { line: 1, .. })));
        for none in ["", "# nothing\n", &format!("24 = {}", hex(1))] {
            assert_eq!(registers_from_text(none), Err(RegistersError::Selection(SelectionError)), "{none:?}");
        }
        assert_eq!(registers_from_text(&"\n".repeat(LINES_MAX + 1)), Err(RegistersError::TooLong));
    }

    proptest! {
        #[test]
        fn foreign_text_never_panics(text in "[0-9a-f=:+ x#\\n\u{e9}]{0,200}") {
            let _ = registers_from_text(&text);
        }
    }
}
