//! A counter in the TPM that only goes up, against state that was set back.
//!
//! A counter that is removed and made again starts above every value that any counter of this TPM ever had, so that
//! removing it denies service but hides no rollback (TPM 2.0 Library, Part 1, Section 37.2.4).

use crate::error::{self, TpmError, of, unexpected};
use crate::link::{Salted, Srk, hashing};
use crate::owner::Tpm;
use crate::provision::HierarchyAuth;
use minicbor::{Decode, Encode};
use std::sync::atomic::Ordering;
use tss_esapi::Context;
use tss_esapi::attributes::NvIndexAttributesBuilder;
use tss_esapi::constants::nv_index_type::NvIndexType;
use tss_esapi::constants::response_code::Tss2ResponseCodeKind as Kind;
use tss_esapi::handles::{NvIndexHandle, NvIndexTpmHandle, ObjectHandle, TpmHandle};
use tss_esapi::interface_types::resource_handles::{NvAuth, Provision};
use tss_esapi::structures::{Auth, NvPublic, NvPublicBuilder};

/// Where the counter is kept: in the owner's range (TCG registry of reserved handles).
pub const COUNTER_INDEX_DEFAULT: u32 = 0x0180_5A01;
/// Bytes of a counter.
const COUNTER_BYTES: u16 = 8;

/// Bytes of a counter's authorisation.
pub const COUNTER_AUTH_BYTES: usize = 32;

/// A counter by its place and its Name, which fixes its attributes.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Counter {
    /// Its NV index.
    #[n(0)]
    pub index: u32,
    /// Its Name once it was written.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub name: Vec<u8>,
}

/// How a state stands to the counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// It is the newest.
    Current,
    /// It was written and the counter was not advanced any more: a crash between the two. Advance it now.
    Ahead,
}

/// Judges a state that was written as number `recorded`: first the state with the next number is stored durably, then
/// the counter is advanced, so that only the newest state can be at the counter's value or one ahead.
///
/// # Errors
/// [`TpmError::CounterRollback`], [`TpmError::CounterReplaced`].
pub fn judge_state(recorded: u64, anchored: u64) -> Result<Freshness, TpmError> {
    match recorded.checked_sub(anchored) {
        Some(0) => Ok(Freshness::Current),
        Some(1) => Ok(Freshness::Ahead),
        Some(_) => Err(TpmError::CounterReplaced { recorded, anchored }),
        None => Err(TpmError::CounterRollback { recorded, anchored }),
    }
}

impl Tpm {
    /// Makes a counter and advances it once, because it cannot be read before. Its authorisation must not end in zero
    /// bytes.
    ///
    /// # Errors
    /// [`TpmError::AlreadyOwned`] if the index is taken, [`TpmError::AuthIncorrect`], and others.
    pub fn create_counter(
        &self,
        srk: &Srk,
        owner_auth: &HierarchyAuth,
        index: u32,
        auth: &[u8; COUNTER_AUTH_BYTES],
    ) -> Result<(Counter, u64), TpmError> {
        let (owner_auth, auth) = (owner_auth.auth()?, index_auth(auth)?);
        let public = index_public(srk, index, NvIndexType::Counter, COUNTER_BYTES)?;
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
                increment(context, session, made)?;
                let value = read(context, session, made)?;
                let name = context.tr_get_name(made.into()).map_err(of("Name"))?.value().to_vec();
                Ok((Counter { index, name }, value))
            })
        })
    }

    /// Removes whatever is at an index, so that a counter can be made there again.
    ///
    /// # Errors
    /// [`TpmError::CounterMissing`], [`TpmError::AuthIncorrect`] and others.
    pub fn remove_counter(&self, srk: &Srk, owner_auth: &HierarchyAuth, index: u32) -> Result<(), TpmError> {
        let owner_auth = owner_auth.auth()?;
        let srk = srk.clone();
        self.call(move |owner| {
            owner.link()?.salted_as(&srk, ObjectHandle::Owner, owner_auth, |context, session| {
                let handle = find(context, index)?.ok_or(TpmError::CounterMissing { index })?;
                session
                    .run(context, |context| context.nv_undefine_space(Provision::Owner, handle))
                    .map_err(of("NV_UndefineSpace"))
            })
        })
    }

    /// The counter's value, authenticated.
    ///
    /// # Errors
    /// [`TpmError::CounterMissing`], [`TpmError::AuthIncorrect`] and others.
    pub fn read_counter(
        &self,
        srk: &Srk,
        counter: &Counter,
        auth: &[u8; COUNTER_AUTH_BYTES],
    ) -> Result<u64, TpmError> {
        self.with_counter(srk, counter, auth, read)
    }

    /// Advances the counter by one and returns its new value.
    ///
    /// # Errors
    /// As [`Tpm::read_counter`].
    pub fn advance_counter(
        &self,
        srk: &Srk,
        counter: &Counter,
        auth: &[u8; COUNTER_AUTH_BYTES],
    ) -> Result<u64, TpmError> {
        self.with_counter(srk, counter, auth, |context, session, handle| {
            increment(context, session, handle)?;
            read(context, session, handle)
        })
    }

    fn with_counter(
        &self,
        srk: &Srk,
        counter: &Counter,
        auth: &[u8; COUNTER_AUTH_BYTES],
        run: impl FnOnce(&mut Context, Salted, NvIndexHandle) -> Result<u64, TpmError> + Send + 'static,
    ) -> Result<u64, TpmError> {
        let Counter { index, name } = counter.clone();
        let missing = move || TpmError::CounterMissing { index };
        self.with_index(srk, index, auth, missing, move |context, session, handle| {
            // Computed from the public area: another kind of index with the same authorisation is not ours.
            let found = context.tr_get_name(handle.into()).map_err(of("Name"))?;
            if found.value() == name { run(context, session, handle) } else { Err(missing()) }
        })
    }

    /// Runs with an NV index and its authorisation. `missing` is the error of there being none.
    pub(crate) fn with_index<T: Send + 'static>(
        &self,
        srk: &Srk,
        index: u32,
        auth: &[u8; COUNTER_AUTH_BYTES],
        missing: impl FnOnce() -> TpmError + Send + 'static,
        run: impl FnOnce(&mut Context, Salted, NvIndexHandle) -> Result<T, TpmError> + Send + 'static,
    ) -> Result<T, TpmError> {
        let (srk, auth) = (srk.clone(), index_auth(auth)?);
        self.call(move |owner| {
            let given_up = owner.given_up();
            owner.link()?.salted(&srk, |context, session| {
                let handle = find(context, index)?.ok_or_else(missing)?;
                let outcome =
                    context.tr_set_auth(handle.into(), auth).map_err(of("SetAuth")).and_then(|()| {
                        // Who gave up has told its caller that nothing changed.
                        if given_up.load(Ordering::SeqCst) {
                            return Err(TpmError::NoAnswer { seconds: 0 });
                        }
                        run(context, session, handle)
                    });
                let closed = context.tr_close(&mut ObjectHandle::from(handle)).map_err(of("close"));
                let value = outcome?;
                closed.map(|()| value)
            })
        })
    }
}

pub(crate) fn index_auth(auth: &[u8; COUNTER_AUTH_BYTES]) -> Result<Auth, TpmError> {
    if auth.last() == Some(&0) {
        return Err(TpmError::Unsupported { what: "take an authorisation that ends in zero".to_owned() });
    }
    Auth::try_from(&auth[..]).map_err(unexpected("take an authorisation of 32 bytes"))
}

fn find(context: &mut Context, index: u32) -> Result<Option<NvIndexHandle>, TpmError> {
    let Ok(handle) = NvIndexTpmHandle::new(index) else { return Ok(None) };
    match context.tr_from_tpm_public(TpmHandle::NvIndex(handle)) {
        Ok(object) => Ok(Some(object.into())),
        Err(error) => match error::kind(error) {
            Some(Kind::Handle | Kind::ReferenceH0) => Ok(None),
            _ => Err(of("NV_ReadPublic")(error)),
        },
    }
}

fn increment(context: &mut Context, session: Salted, handle: NvIndexHandle) -> Result<(), TpmError> {
    session
        .run(context, |context| context.nv_increment(NvAuth::NvIndex(handle), handle))
        .map_err(of("NV_Increment"))
}

fn read(context: &mut Context, session: Salted, handle: NvIndexHandle) -> Result<u64, TpmError> {
    let bytes = session
        .run(context, |context| context.nv_read(NvAuth::NvIndex(handle), handle, COUNTER_BYTES, 0))
        .map_err(of("NV_Read"))?;
    let bytes = <[u8; COUNTER_BYTES as usize]>::try_from(bytes.value());
    bytes.map(u64::from_be_bytes).map_err(|_| TpmError::Unsupported { what: "read a counter".to_owned() })
}

/// Read and changed with its authorisation only, by nobody without. Not subject to the dictionary-attack defence: the
/// authorisation is 32 random bytes, and a lockout by wrong PINs must not stop a running appliance.
pub(crate) fn index_public(
    srk: &Srk,
    index: u32,
    kind: NvIndexType,
    bytes: u16,
) -> Result<NvPublic, TpmError> {
    let attributes = NvIndexAttributesBuilder::new()
        .with_nv_index_type(kind)
        .with_auth_read(true)
        .with_auth_write(true)
        .with_no_da(true)
        .build()
        .map_err(unexpected("take an index's attributes"))?;
    NvPublicBuilder::new()
        .with_nv_index(NvIndexTpmHandle::new(index).map_err(unexpected("keep anything at this index"))?)
        .with_index_name_algorithm(hashing(srk.profile))
        .with_index_attributes(attributes)
        .with_data_area_size(bytes.into())
        .build()
        .map_err(unexpected("take an index's template"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_state_and_one_crash_ahead_are_fresh() {
        assert_eq!(judge_state(7, 7), Ok(Freshness::Current));
        assert_eq!(judge_state(8, 7), Ok(Freshness::Ahead));
        assert_eq!(judge_state(6, 7), Err(TpmError::CounterRollback { recorded: 6, anchored: 7 }));
        assert_eq!(judge_state(9, 7), Err(TpmError::CounterReplaced { recorded: 9, anchored: 7 }));
        assert_eq!(
            judge_state(0, u64::MAX),
            Err(TpmError::CounterRollback { recorded: 0, anchored: u64::MAX })
        );
    }
}
