//! The two commands of the dictionary-attack defence, which tss-esapi 7.7 does not offer.
//!
//! Its `Context` gives out neither its ESYS context nor a way to send other commands, so this opens a connection of its
//! own: the caller has closed the other one, so that no two share slots. The only unsafe code of the crate.

use crate::dictionary::DictionaryParameters;
use crate::error::{self, TpmError, hex};
use crate::link::{Srk, hashing};
use std::ffi::CString;
use std::ptr::{null, null_mut};
use tss_esapi::structures::Auth;
use tss_esapi::tss2_esys as esys;
use zeroize::Zeroize;

/// TPM_SE_HMAC.
const SE_HMAC: u8 = 0;

/// Sets the parameters while the lockout authorisation is still empty. They are no secret; the caller reads them back
/// in an authenticated session.
pub(crate) fn set_parameters(tcti: &str, parameters: DictionaryParameters) -> Result<(), TpmError> {
    let connection = Connection::open(tcti)?;
    #[allow(
        unsafe_code,
        reason = "no safe wrapper; the pointer is the open context's, numbers are passed by value"
    )]
    let code = unsafe {
        esys::Esys_DictionaryAttackParameters(
            connection.esys,
            esys::ESYS_TR_RH_LOCKOUT,
            esys::ESYS_TR_PASSWORD,
            esys::ESYS_TR_NONE,
            esys::ESYS_TR_NONE,
            parameters.tries_max,
            parameters.interval_s,
            parameters.recovery_s,
        )
    };
    check("DictionaryAttackParameters", code)
}

/// Forgives all wrong tries. The authorisation is used in a session that is salted to the pinned storage key, so that it
/// is never on the wire.
pub(crate) fn reset(tcti: &str, srk: &Srk, lockout: &Auth) -> Result<(), TpmError> {
    let connection = Connection::open(tcti)?;
    let session = connection.salted_session(srk)?;
    let mut auth: esys::TPM2B_AUTH = lockout.clone().into();
    #[allow(
        unsafe_code,
        reason = "no safe wrapper; context and auth live across the call, handles are values"
    )]
    let code = unsafe {
        let set = esys::Esys_TR_SetAuth(connection.esys, esys::ESYS_TR_RH_LOCKOUT, &auth);
        if set == 0 {
            esys::Esys_DictionaryAttackLockReset(
                connection.esys,
                esys::ESYS_TR_RH_LOCKOUT,
                session,
                esys::ESYS_TR_NONE,
                esys::ESYS_TR_NONE,
            )
        } else {
            set
        }
    };
    auth.buffer.zeroize();
    #[allow(
        unsafe_code,
        reason = "no safe wrapper; the session is the one started above and is not used again"
    )]
    let flushed = unsafe { esys::Esys_FlushContext(connection.esys, session) };
    check("DictionaryAttackLockReset", code)?;
    check("FlushContext", flushed)
}

/// An ESYS context on a TCTI context. Both are freed on drop, in that order.
struct Connection {
    tcti: *mut esys::TSS2_TCTI_CONTEXT,
    esys: *mut esys::ESYS_CONTEXT,
}

impl Connection {
    fn open(tcti: &str) -> Result<Self, TpmError> {
        let absent = |code| error::of_code("connect", code, None);
        let name = CString::new(tcti).map_err(|_| absent(0))?;
        let mut connection = Self { tcti: null_mut(), esys: null_mut() };
        #[allow(
            unsafe_code,
            reason = "no safe wrapper; both pointers are written on success only and owned by Self"
        )]
        let code = unsafe {
            match esys::Tss2_TctiLdr_Initialize(name.as_ptr(), &mut connection.tcti) {
                0 => esys::Esys_Initialize(&mut connection.esys, connection.tcti, null_mut()),
                code => code,
            }
        };
        if code == 0 { Ok(connection) } else { Err(absent(code)) }
    }

    /// An HMAC session salted to the storage key, whose Name is computed from the very public area that the salt is
    /// encrypted to.
    fn salted_session(&self, srk: &Srk) -> Result<esys::ESYS_TR, TpmError> {
        let (mut key, mut session) = (esys::ESYS_TR_NONE, esys::ESYS_TR_NONE);
        let mut name: *mut esys::TPM2B_NAME = null_mut();
        #[allow(unsafe_code, reason = "no safe wrapper; all out-pointers are locals")]
        let code = unsafe {
            let none = esys::ESYS_TR_NONE;
            match esys::Esys_TR_FromTPMPublic(self.esys, srk.handle, none, none, none, &mut key) {
                0 => esys::Esys_TR_GetName(self.esys, key, &mut name),
                code => code,
            }
        };
        check("ReadPublic", code)?;
        #[allow(unsafe_code, reason = "the library allocated the name; it is copied and freed once")]
        let found = unsafe {
            let copy = *name;
            esys::Esys_Free(name.cast());
            copy
        };
        let found = found.name.get(..found.size.into()).unwrap_or_default();
        if found != srk.name {
            return Err(TpmError::SrkChanged { expected: hex(&srk.name), found: hex(found) });
        }
        let symmetric: esys::TPMT_SYM_DEF =
            srk.session_cipher().try_into().map_err(error::unexpected("the session's cipher"))?;
        let hash: u16 = hashing(srk.profile).into();
        #[allow(
            unsafe_code,
            reason = "no safe wrapper; the cipher lives across the call, a null nonce means: draw one"
        )]
        let code = unsafe {
            let none = esys::ESYS_TR_NONE;
            esys::Esys_StartAuthSession(
                self.esys,
                key,
                none,
                none,
                none,
                none,
                null(),
                SE_HMAC,
                &symmetric,
                hash,
                &mut session,
            )
        };
        check("StartAuthSession", code)?;
        Ok(session)
    }
}

impl Drop for Connection {
    #[allow(
        unsafe_code,
        reason = "no safe wrapper; each pointer is null or owned, and both functions take null"
    )]
    fn drop(&mut self) {
        unsafe {
            if !self.esys.is_null() {
                esys::Esys_Finalize(&mut self.esys);
            }
            if !self.tcti.is_null() {
                esys::Tss2_TctiLdr_Finalize(&mut self.tcti);
            }
        }
    }
}

/// The response code of a command.
fn check(call: &'static str, code: u32) -> Result<(), TpmError> {
    /// Response codes of a failed authorisation, without the number of the session.
    const RC_AUTH_FAIL: u32 = 0x08E;
    const RC_BAD_AUTH: u32 = 0x0A2;
    const RC_LOCKOUT: u32 = 0x921;
    match code {
        0 => Ok(()),
        RC_LOCKOUT => Err(TpmError::Lockout { wait_s: 0 }),
        code if [RC_AUTH_FAIL, RC_BAD_AUTH].contains(&(code & 0xFFFF_F0FF)) => {
            Err(TpmError::AuthIncorrect { call })
        }
        code => Err(error::of_code(call, code, None)),
    }
}
