//! Keys in the TPM's own memory, which it can forget.
//!
//! What a TPM sealed it opens for ever: the sealed bytes lie outside, and whoever kept a copy and has the PIN comes back
//! with it. So the sealed key wraps root keys only together with a second one, which exists nowhere but in NV memory and
//! is overwritten when the root is rotated. Its lifetime is an *epoch*. There are two places, so that the next epoch's key
//! is there before the present one's goes.

use crate::counter::{index_auth, index_public};
use crate::error::{self, TpmError, of, unexpected};
use crate::link::{Salted, Srk};
use crate::owner::Tpm;
use crate::provision::HierarchyAuth;
use minicbor::{Decode, Encode};
use tss_esapi::Context;
use tss_esapi::constants::nv_index_type::NvIndexType;
use tss_esapi::constants::response_code::Tss2ResponseCodeKind as Kind;
use tss_esapi::handles::{NvIndexHandle, ObjectHandle};
use tss_esapi::interface_types::resource_handles::{NvAuth, Provision};
use tss_esapi::structures::MaxNvBuffer;
use zeroize::Zeroizing;

/// Bytes of an epoch's name.
const ID_BYTES: usize = 16;
/// Bytes of an epoch's key.
pub const EPOCH_KEY_BYTES: usize = 32;
/// What a place holds: the name, then the key.
const PLACE_BYTES: u16 = 48;
/// Places, at the two indices after the counter's.
const PLACES: u8 = 2;

/// An epoch, by where its key is and what it is called. No secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Epoch {
    #[n(0)]
    place: u8,
    #[cbor(n(1), with = "minicbor::bytes")]
    id: [u8; ID_BYTES],
}

impl Epoch {
    /// What a reader of foreign bytes has to check.
    pub(crate) fn check(self) -> Result<(), &'static str> {
        if self.place < PLACES { Ok(()) } else { Err("its key is at no place") }
    }

    fn index(self, counter_index: u32) -> u32 {
        counter_index + 1 + u32::from(self.place)
    }

    fn erased(self) -> TpmError {
        TpmError::EpochOver { epoch: error::hex(&self.id) }
    }
}

impl Tpm {
    /// Makes both places, and the first epoch in one of them. `auth` is the counter's.
    ///
    /// # Errors
    /// [`TpmError::AlreadyOwned`] if an index is taken, [`TpmError::AuthIncorrect`], and others.
    pub fn create_epochs(
        &self,
        srk: &Srk,
        owner_auth: &HierarchyAuth,
        counter_index: u32,
        auth: &[u8; crate::COUNTER_AUTH_BYTES],
    ) -> Result<Epoch, TpmError> {
        for place in 0..PLACES {
            let (owner_auth, auth) = (owner_auth.auth()?, index_auth(auth)?);
            let index = Epoch { place, id: [0; ID_BYTES] }.index(counter_index);
            let public = index_public(srk, index, NvIndexType::Ordinary, PLACE_BYTES)?;
            let srk = srk.clone();
            self.call(move |owner| {
                owner.link()?.salted_as(&srk, ObjectHandle::Owner, owner_auth, |context, session| {
                    let made = session
                        .run(context, |context| context.nv_define_space(Provision::Owner, Some(auth), public))
                        .map_err(|error| match error::kind(error) {
                            Some(Kind::NvDefined) => {
                                TpmError::AlreadyOwned { what: format!("something is at {index:#010x}") }
                            }
                            _ => of("NV_DefineSpace")(error),
                        })?;
                    // Until it is written once it cannot be read.
                    write(context, session, made, &[0; PLACE_BYTES as usize])
                })
            })?;
        }
        self.begin_epoch(srk, counter_index, None, auth)
    }

    /// Begins another epoch beside `present`, whose key stays.
    ///
    /// # Errors
    /// [`TpmError::EpochsMissing`], [`TpmError::Random`] and others.
    pub fn begin_epoch(
        &self,
        srk: &Srk,
        counter_index: u32,
        present: Option<Epoch>,
        auth: &[u8; crate::COUNTER_AUTH_BYTES],
    ) -> Result<Epoch, TpmError> {
        let mut content = Zeroizing::new([0; PLACE_BYTES as usize]);
        zixt_crypto::fill_random(&mut content[..])?;
        let mut epoch = Epoch { place: present.map_or(0, |present| 1 - present.place), id: [0; ID_BYTES] };
        epoch.id.copy_from_slice(&content[..ID_BYTES]);
        self.with_place(srk, counter_index, epoch, auth, move |context, session, place| {
            write(context, session, place, &content[..])?;
            // Two epochs whose keys are one would let the end of the first take the second with it.
            match read(context, session, place)?.as_slice() == &content[..] {
                true => Ok(()),
                false => Err(TpmError::Unsupported { what: "keep what is written".to_owned() }),
            }
        })?;
        Ok(epoch)
    }

    /// The key of an epoch.
    ///
    /// # Errors
    /// [`TpmError::EpochOver`] if it was erased, [`TpmError::EpochsMissing`] and others.
    pub fn epoch_key(
        &self,
        srk: &Srk,
        counter_index: u32,
        epoch: Epoch,
        auth: &[u8; crate::COUNTER_AUTH_BYTES],
    ) -> Result<Zeroizing<[u8; EPOCH_KEY_BYTES]>, TpmError> {
        let content = self.with_place(srk, counter_index, epoch, auth, read)?;
        let mut key = Zeroizing::new([0; EPOCH_KEY_BYTES]);
        match content.split_at_checked(ID_BYTES) {
            Some((id, content)) if id == epoch.id && content.len() == EPOCH_KEY_BYTES => {
                key.copy_from_slice(content);
                Ok(key)
            }
            _ => Err(epoch.erased()),
        }
    }

    /// Erases the key of an epoch. One that is gone already is no error.
    ///
    /// # Errors
    /// [`TpmError::EpochsMissing`] and others.
    pub fn end_epoch(
        &self,
        srk: &Srk,
        counter_index: u32,
        epoch: Epoch,
        auth: &[u8; crate::COUNTER_AUTH_BYTES],
    ) -> Result<(), TpmError> {
        self.with_place(srk, counter_index, epoch, auth, move |context, session, place| {
            if read(context, session, place)?.get(..ID_BYTES) != Some(&epoch.id[..]) {
                return Ok(());
            }
            write(context, session, place, &[0; PLACE_BYTES as usize])?;
            match read(context, session, place)?.iter().all(|byte| *byte == 0) {
                true => Ok(()),
                false => Err(TpmError::Unsupported { what: "overwrite what it keeps".to_owned() }),
            }
        })
    }

    fn with_place<T: Send + 'static>(
        &self,
        srk: &Srk,
        counter_index: u32,
        epoch: Epoch,
        auth: &[u8; crate::COUNTER_AUTH_BYTES],
        run: impl FnOnce(&mut Context, Salted, NvIndexHandle) -> Result<T, TpmError> + Send + 'static,
    ) -> Result<T, TpmError> {
        let index = epoch.index(counter_index);
        // Its Name is not pinned as the counter's is: nobody else can make one with this authorisation, and what is read
        // from another one is no key of this epoch.
        self.with_index(srk, index, auth, move || TpmError::EpochsMissing { index }, run)
    }
}

fn write(
    context: &mut Context,
    session: Salted,
    place: NvIndexHandle,
    content: &[u8],
) -> Result<(), TpmError> {
    let content = MaxNvBuffer::try_from(content).map_err(unexpected("take so many bytes"))?;
    session
        .run(context, |context| context.nv_write(NvAuth::NvIndex(place), place, content, 0))
        .map_err(of("NV_Write"))
}

fn read(
    context: &mut Context,
    session: Salted,
    place: NvIndexHandle,
) -> Result<Zeroizing<Vec<u8>>, TpmError> {
    session
        .run(context, |context| context.nv_read(NvAuth::NvIndex(place), place, PLACE_BYTES, 0))
        .map(|content| Zeroizing::new(content.value().to_vec()))
        .map_err(of("NV_Read"))
}
