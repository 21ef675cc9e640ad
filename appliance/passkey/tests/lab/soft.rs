//! A software authenticator with its browser, whose every byte a test can change, and a server around the sign-in machine.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    reason = "test support; each test program uses a part of it"
)]

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::{AsBigEndian as _, EcPublicKeyUncompressedBin};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use minicbor::Encoder;
use serde_json::json;
use zixt_crypto::fill_random;
use zixt_identity::{CredentialChange, WebAuthnCredential};
use zixt_passkey::{CreationOptions, FinishError, RequestOptions};

use super::server::{ORIGIN, RP_ID, Server};

pub const UP: u8 = 1 << 0;
pub const UV: u8 = 1 << 2;
pub const BE: u8 = 1 << 3;
pub const BS: u8 = 1 << 4;
pub const AT: u8 = 1 << 6;
pub const ED: u8 = 1 << 7;

pub fn encode(bytes: &[u8]) -> String {
    BASE64URL.encode(bytes)
}

/// Bytes of CBOR.
pub fn cbor(write: impl FnOnce(&mut Encoder<&mut Vec<u8>>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(&mut Encoder::new(&mut bytes));
    bytes
}

enum Key {
    Ec(EcdsaKeyPair),
    Rsa(RsaKeyPair),
    Ed(Ed25519KeyPair),
}

/// A software authenticator with one credential.
pub struct Soft {
    key: Key,
    pub id: Vec<u8>,
    pub counter: u32,
    pub user: Option<String>,
}

/// A point of a curve as a key (RFC 9053 section 7.1).
pub fn ec_key(algorithm: i64, curve: i64, x: &[u8], y: &[u8]) -> Vec<u8> {
    cbor(|e| {
        e.map(5).unwrap().i64(1).unwrap().i64(2).unwrap().i64(3).unwrap().i64(algorithm).unwrap();
        e.i64(-1).unwrap().i64(curve).unwrap().i64(-2).unwrap().bytes(x).unwrap();
        e.i64(-3).unwrap().bytes(y).unwrap();
    })
}

/// A modulus and an exponent as a key (RFC 8230 section 4).
pub fn rsa_key(n: &[u8], e: &[u8]) -> Vec<u8> {
    cbor(|c| {
        c.map(4).unwrap().i64(1).unwrap().i64(3).unwrap().i64(3).unwrap().i64(-257).unwrap();
        c.i64(-1).unwrap().bytes(n).unwrap().i64(-2).unwrap().bytes(e).unwrap();
    })
}

impl Soft {
    pub fn es256() -> Self {
        Self::of(Key::Ec(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap()))
    }

    pub fn es384() -> Self {
        Self::of(Key::Ec(EcdsaKeyPair::generate(&ECDSA_P384_SHA384_ASN1_SIGNING).unwrap()))
    }

    pub fn rs256() -> Self {
        Self::of(Key::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap()))
    }

    pub fn ed25519() -> Self {
        Self::of(Key::Ed(Ed25519KeyPair::generate().unwrap()))
    }

    fn of(key: Key) -> Self {
        let mut id = vec![0; 32];
        fill_random(&mut id).unwrap();
        Self { key, id, counter: 0, user: None }
    }

    /// The coordinates of its key.
    pub fn point(&self) -> (Vec<u8>, Vec<u8>) {
        let Key::Ec(key) = &self.key else { panic!("no elliptic curve") };
        let point: EcPublicKeyUncompressedBin<'_> = key.public_key().as_be_bytes().unwrap();
        let (x, y) = point.as_ref()[1..].split_at((point.as_ref().len() - 1) / 2);
        (x.to_vec(), y.to_vec())
    }

    pub fn public_key(&self) -> Vec<u8> {
        match &self.key {
            Key::Ec(_) => {
                let (x, y) = self.point();
                if x.len() == 32 { ec_key(-7, 1, &x, &y) } else { ec_key(-35, 2, &x, &y) }
            }
            Key::Rsa(key) => {
                // RSAPublicKey (RFC 8017 appendix A.1.1) of 2048 bits: the heads of the sequence and of the modulus with its
                // leading zero have 9 bytes, the head of the exponent 2.
                let der = key.public_key().as_ref();
                assert_eq!(der.len(), 270);
                rsa_key(&der[9..265], &der[267..])
            }
            Key::Ed(key) => cbor(|c| {
                c.map(4).unwrap().i64(1).unwrap().i64(1).unwrap().i64(3).unwrap().i64(-8).unwrap();
                c.i64(-1).unwrap().i64(6).unwrap();
                c.i64(-2).unwrap().bytes(key.public_key().as_ref()).unwrap();
            }),
        }
    }

    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        match &self.key {
            Key::Ec(key) => key.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec(),
            Key::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature).unwrap();
                signature
            }
            Key::Ed(key) => key.sign(message).as_ref().to_vec(),
        }
    }

    /// Answers a registration; `change` gets at everything before it is signed or written.
    pub fn create(&mut self, options: &CreationOptions, change: impl FnOnce(&mut Made)) -> Vec<u8> {
        self.user = Some(options.user.id.clone());
        let mut made = Made::new(self, "webauthn.create", &options.challenge);
        made.flags |= AT;
        made.key = self.public_key();
        change(&mut made);
        made.registration()
    }

    /// Answers a sign-in.
    pub fn get(&mut self, options: &RequestOptions, change: impl FnOnce(&mut Made)) -> Vec<u8> {
        self.counter += 1;
        let mut made = Made::new(self, "webauthn.get", &options.challenge);
        made.user.clone_from(&self.user);
        change(&mut made);
        made.assertion(self)
    }
}

/// What browser and authenticator are about to make.
pub struct Made {
    pub kind: String,
    pub challenge: String,
    pub origin: String,
    pub cross_origin: Option<bool>,
    pub top_origin: Option<String>,
    /// Instead of the client data that the above make.
    pub client_data: Option<Vec<u8>>,
    pub rp_id: String,
    pub flags: u8,
    pub counter: u32,
    pub aaguid: [u8; 16],
    pub id: Vec<u8>,
    /// Instead of the length of the id.
    pub id_length: Option<u16>,
    pub key: Vec<u8>,
    /// Behind the rest of the authenticator's data.
    pub tail: Vec<u8>,
    /// How many bytes of the authenticator's data are there.
    pub cut: Option<usize>,
    pub format: String,
    pub statement: Vec<u8>,
    /// Instead of the attestation object that the above make.
    pub object: Option<Vec<u8>>,
    /// Behind the attestation object.
    pub object_tail: Vec<u8>,
    pub user: Option<String>,
    pub outer_id: String,
    pub outer_raw_id: String,
    pub outer_kind: String,
    pub signature: Option<Vec<u8>>,
}

impl Made {
    fn new(soft: &Soft, kind: &str, challenge: &str) -> Self {
        Self {
            kind: kind.into(),
            challenge: challenge.into(),
            origin: ORIGIN.into(),
            cross_origin: Some(false),
            top_origin: None,
            client_data: None,
            rp_id: RP_ID.into(),
            flags: UP | UV,
            counter: soft.counter,
            aaguid: [0xa6; 16],
            id: soft.id.clone(),
            id_length: None,
            key: Vec::new(),
            tail: Vec::new(),
            cut: None,
            format: "none".into(),
            statement: vec![0xa0],
            object: None,
            object_tail: Vec::new(),
            user: None,
            outer_id: encode(&soft.id),
            outer_raw_id: encode(&soft.id),
            outer_kind: "public-key".into(),
            signature: None,
        }
    }

    pub fn client_data(&self) -> Vec<u8> {
        if let Some(bytes) = &self.client_data {
            return bytes.clone();
        }
        let mut data = json!({"type": self.kind, "challenge": self.challenge, "origin": self.origin});
        if let Some(cross) = self.cross_origin {
            data["crossOrigin"] = json!(cross);
        }
        if let Some(top) = &self.top_origin {
            data["topOrigin"] = json!(top);
        }
        serde_json::to_vec(&data).unwrap()
    }

    pub fn authenticator_data(&self) -> Vec<u8> {
        let mut data = digest(&SHA256, self.rp_id.as_bytes()).as_ref().to_vec();
        data.push(self.flags);
        data.extend(self.counter.to_be_bytes());
        if self.flags & AT != 0 {
            data.extend(self.aaguid);
            let length = self.id_length.unwrap_or_else(|| u16::try_from(self.id.len()).unwrap());
            data.extend(length.to_be_bytes());
            data.extend(&self.id);
            data.extend(&self.key);
        }
        data.extend(&self.tail);
        if let Some(cut) = self.cut {
            data.truncate(cut);
        }
        data
    }

    /// What is signed: by the credential's key, or by the key of a statement.
    pub fn signed(&self) -> Vec<u8> {
        let mut signed = self.authenticator_data();
        signed.extend(digest(&SHA256, &self.client_data()).as_ref());
        signed
    }

    pub fn attestation_object(&self) -> Vec<u8> {
        let mut object = self.object.clone().unwrap_or_else(|| {
            let mut bytes = vec![0xa3];
            bytes.extend(cbor(|e| {
                e.str("fmt").unwrap().str(&self.format).unwrap().str("attStmt").unwrap();
            }));
            bytes.extend(&self.statement);
            bytes.extend(cbor(|e| {
                e.str("authData").unwrap().bytes(&self.authenticator_data()).unwrap();
            }));
            bytes
        });
        object.extend(&self.object_tail);
        object
    }

    fn registration(&self) -> Vec<u8> {
        // With the members that browsers send and nobody reads.
        let answer = json!({
            "id": self.outer_id,
            "rawId": self.outer_raw_id,
            "type": self.outer_kind,
            "authenticatorAttachment": "cross-platform",
            "response": {
                "clientDataJSON": encode(&self.client_data()),
                "attestationObject": encode(&self.attestation_object()),
                "transports": ["usb"],
                "publicKeyAlgorithm": -7,
            },
            "clientExtensionResults": {"credProps": {"rk": true}},
        });
        serde_json::to_vec(&answer).unwrap()
    }

    fn assertion(&self, soft: &Soft) -> Vec<u8> {
        let signature = self.signature.clone().unwrap_or_else(|| soft.sign(&self.signed()));
        let answer = json!({
            "id": self.outer_id,
            "rawId": self.outer_raw_id,
            "type": self.outer_kind,
            "authenticatorAttachment": null,
            "response": {
                "clientDataJSON": encode(&self.client_data()),
                "authenticatorData": encode(&self.authenticator_data()),
                "signature": encode(&signature),
                "userHandle": self.user,
            },
            "clientExtensionResults": {},
        });
        serde_json::to_vec(&answer).unwrap()
    }
}

impl Server {
    /// Registers an authenticator, with whatever the test changes of its answer.
    pub fn try_to_register(
        &mut self,
        soft: &mut Soft,
        change: impl FnOnce(&mut Made),
    ) -> Result<WebAuthnCredential, FinishError> {
        let caller = self.session();
        let options = self.options(&caller);
        let text = soft.create(&options, change);
        self.finish(&caller, &text)
    }

    /// Registers an authenticator for good.
    pub fn register(&mut self, soft: &mut Soft) -> WebAuthnCredential {
        let credential = self.try_to_register(soft, |_| ()).unwrap();
        self.change(CredentialChange::AddWebAuthn(credential.clone()));
        credential
    }
}
