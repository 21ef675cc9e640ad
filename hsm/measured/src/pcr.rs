//! Platform configuration registers: which ones, their values, and what they will be after the next boot.

use crate::profile::Profile;
use crate::wire::{Reader, WireError};
use minicbor::{Decode, Encode};
use sha2::{Digest, Sha256};
use std::fmt;
use zixt_types::Canonical;

/// Registers of the PC Client profile: 0 to 23.
const PCR_MAX: u8 = 23;
/// TPM_ALG_SHA256: the bank that firmware, shim and systemd measure into on every machine.
const BANK: u16 = 0x000B;
/// Bytes of the bit field that selects registers.
const SELECT_BYTES: u8 = 3;

/// Bytes of a register's value in the SHA-256 bank.
pub const PCR_BYTES: usize = 32;

/// A set of registers of the SHA-256 bank, never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct PcrSelection(#[n(0)] u32);

/// A selection that is empty or names a register that does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("registers are chosen from 0 to {PCR_MAX}, each once, and at least one")]
pub struct SelectionError;

impl PcrSelection {
    /// Secure Boot's policy (7) and the kernel image with its command line and initrd (11).
    pub const DEFAULT: Self = Self(1 << 7 | 1 << 11);

    /// The registers by number.
    ///
    /// # Errors
    /// [`SelectionError`].
    pub fn new(indices: &[u8]) -> Result<Self, SelectionError> {
        let mut bits = 0;
        for index in indices {
            let bit =
                1u32.checked_shl((*index).into()).filter(|_| *index <= PCR_MAX).ok_or(SelectionError)?;
            if bits & bit != 0 {
                return Err(SelectionError);
            }
            bits |= bit;
        }
        Self(bits).valid()
    }

    fn valid(self) -> Result<Self, SelectionError> {
        if self.0 != 0 && self.0 >> (PCR_MAX + 1) == 0 { Ok(self) } else { Err(SelectionError) }
    }

    /// Whether the bits name registers at all: decoded ones need not.
    #[must_use]
    pub fn is_valid(self) -> bool {
        self.valid().is_ok()
    }

    /// The registers in ascending order, which is the order that a TPM hashes them in.
    pub fn indices(self) -> impl Iterator<Item = u8> {
        (0..=PCR_MAX).filter(move |index| self.0 >> index & 1 == 1)
    }

    /// TPML_PCR_SELECTION with one entry for the SHA-256 bank.
    pub(crate) fn to_wire(self) -> Vec<u8> {
        let mut out = 1u32.to_be_bytes().to_vec();
        out.extend(BANK.to_be_bytes());
        out.push(SELECT_BYTES);
        out.extend(&self.0.to_le_bytes()[..SELECT_BYTES.into()]);
        out
    }

    /// Reads what [`PcrSelection::to_wire`] writes.
    pub(crate) fn from_wire(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        const WHAT: WireError = WireError { what: "the selection of registers" };
        if reader.u32()? != 1 || reader.u16()? != BANK || reader.u8()? != SELECT_BYTES {
            return Err(WHAT);
        }
        let bits = reader.take(SELECT_BYTES.into())?;
        let bits = bits.iter().rev().fold(0, |bits, byte| bits << 8 | u32::from(*byte));
        Self(bits).valid().map_err(|SelectionError| WHAT)
    }
}

impl fmt::Display for PcrSelection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.indices().enumerate().try_for_each(|(at, index)| match at {
            0 => write!(f, "{index}"),
            _ => write!(f, ",{index}"),
        })
    }
}

/// One register.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Pcr {
    /// Its number.
    #[n(0)]
    pub index: u8,
    /// Its value in the SHA-256 bank.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub value: [u8; PCR_BYTES],
}

impl fmt::Debug for Pcr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.index)?;
        self.value.iter().take(4).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Values of a selection's registers, in ascending order.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct PcrValues(#[n(0)] Vec<Pcr>);

impl Canonical for PcrValues {
    const WHAT: &'static str = "register values";
    /// 24 registers of at most 36 bytes.
    const BYTES_MAX: usize = 1_000;

    fn check(&self) -> Result<(), &'static str> {
        self.selection().map(|_| ()).map_err(|_| "its registers are not sorted, or do not exist")
    }
}

impl PcrValues {
    /// Values by register, in any order.
    ///
    /// # Errors
    /// [`SelectionError`].
    pub fn new(mut pcrs: Vec<Pcr>) -> Result<Self, SelectionError> {
        PcrSelection::new(&pcrs.iter().map(|pcr| pcr.index).collect::<Vec<_>>())?;
        pcrs.sort_by_key(|pcr| pcr.index);
        Ok(Self(pcrs))
    }

    /// Which registers these are.
    ///
    /// # Errors
    /// [`SelectionError`] if they were decoded from bytes that are not ours.
    pub fn selection(&self) -> Result<PcrSelection, SelectionError> {
        if !self.0.is_sorted_by_key(|pcr| pcr.index) {
            return Err(SelectionError);
        }
        PcrSelection::new(&self.0.iter().map(|pcr| pcr.index).collect::<Vec<_>>())
    }

    /// The registers.
    #[must_use]
    pub fn pcrs(&self) -> &[Pcr] {
        &self.0
    }

    /// Whether nothing was measured: every register still has the value that it starts with.
    #[must_use]
    pub fn unmeasured(&self) -> bool {
        self.0.iter().all(|pcr| [0x00, 0xFF].iter().any(|reset| pcr.value == [*reset; PCR_BYTES]))
    }

    /// The digest that PolicyPCR and a quote are over.
    #[must_use]
    pub fn digest(&self, profile: Profile) -> Vec<u8> {
        profile.hash(&self.0.iter().map(|pcr| &pcr.value[..]).collect::<Vec<_>>())
    }

    /// The registers whose values differ, or that only one side has.
    #[must_use]
    pub fn changed_from(&self, other: &Self) -> Vec<u8> {
        (0..=PCR_MAX).filter(|index| self.value(*index) != other.value(*index)).collect()
    }

    fn value(&self, index: u8) -> Option<&[u8; PCR_BYTES]> {
        self.0.iter().find(|pcr| pcr.index == index).map(|pcr| &pcr.value)
    }
}

/// What a register that starts as `start` holds after these digests were measured into it, one after another: the way
/// to the values of an image that was never booted here.
#[must_use]
pub fn predict(start: [u8; PCR_BYTES], events: &[[u8; PCR_BYTES]]) -> [u8; PCR_BYTES] {
    events
        .iter()
        .fold(start, |value, event| Sha256::new_with_prefix(value).chain_update(event).finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selections_are_sets_of_existing_registers() {
        assert_eq!(PcrSelection::new(&[11, 7]), Ok(PcrSelection::DEFAULT));
        for wrong in [&[][..], &[24], &[7, 7], &[255]] {
            assert_eq!(PcrSelection::new(wrong), Err(SelectionError), "{wrong:?}");
        }
        assert_eq!(PcrSelection::DEFAULT.to_string(), "sha256:7,11");
        assert!(!PcrSelection(0).is_valid() && !PcrSelection(1 << 24).is_valid());
    }

    #[test]
    fn selections_survive_the_wire() {
        for indices in [&[0][..], &[7, 11], &[0, 8, 16, 23]] {
            let selection = PcrSelection::new(indices).unwrap();
            let wire = selection.to_wire();
            let mut reader = Reader::new("selection", &wire);
            assert_eq!(PcrSelection::from_wire(&mut reader), Ok(selection));
            assert!(reader.end().is_ok());
            for cut in 0..wire.len() {
                assert!(PcrSelection::from_wire(&mut Reader::new("selection", &wire[..cut])).is_err());
            }
        }
        assert_eq!(PcrSelection::DEFAULT.to_wire(), [0, 0, 0, 1, 0, 0x0B, 3, 0x80, 0x08, 0]);
    }

    #[test]
    fn values_are_compared_by_register() {
        let pcr = |index, byte| Pcr { index, value: [byte; PCR_BYTES] };
        let a = PcrValues::new(vec![pcr(11, 1), pcr(7, 0)]).unwrap();
        assert_eq!(a.pcrs()[0].index, 7);
        let b = PcrValues::new(vec![pcr(7, 0), pcr(11, 2), pcr(12, 0)]).unwrap();
        assert_eq!(a.changed_from(&b), [11, 12]);
        assert!(!a.unmeasured());
        assert!(PcrValues::new(vec![pcr(7, 0), pcr(17, 0xFF)]).unwrap().unmeasured());
        assert!(PcrValues(vec![pcr(11, 0), pcr(7, 0)]).selection().is_err());
    }
}
