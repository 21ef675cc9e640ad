use super::*;
use proptest::prelude::*;
use zixt_crypto::fill_random;
use zixt_crypto::password::Params;

const COST: Cost = Cost(Params::MIN);
const ALICE: AccountId = AccountId([1; 16]);

fn phrase(text: &str) -> Password {
    Password::parse(text).unwrap()
}

fn share(n: u8) -> VaultShare {
    VaultShare::from_bytes(&[n; 32])
}

fn vault(share: Option<&VaultShare>) -> Vault {
    let passphrase = phrase("seven quiet rivers");
    Vault::create(ALICE, 1, COST, &passphrase, share, b"keys", &mut fill_random).unwrap()
}

#[test]
fn it_opens_with_the_passphrase_and_the_share_and_nothing_else() {
    let (right, wrong) = (phrase("seven quiet rivers"), phrase("seven quiet river"));
    let plain = vault(None);
    assert_eq!(*plain.open(ALICE, 0, &right, None).unwrap(), b"keys");
    assert_eq!(plain.open(ALICE, 0, &wrong, None), Err(OpenVaultError::Rejected));
    assert_eq!(plain.open(ALICE, 0, &right, Some(&share(1))), Err(OpenVaultError::ShareNotNeeded));
    assert_eq!(plain.open(AccountId([2; 16]), 0, &right, None), Err(OpenVaultError::OtherAccount));
    assert_eq!(plain.open(ALICE, 2, &right, None), Err(OpenVaultError::Older { got: 1, least: 2 }));
    let shared = vault(Some(&share(1)));
    assert!(shared.needs_share());
    assert_eq!(*shared.open(ALICE, 1, &right, Some(&share(1))).unwrap(), b"keys");
    assert_eq!(shared.open(ALICE, 1, &right, Some(&share(2))), Err(OpenVaultError::Rejected));
    assert_eq!(shared.open(ALICE, 1, &right, None), Err(OpenVaultError::ShareNeeded));
}

#[test]
fn everything_that_is_readable_is_bound() {
    let right = phrase("seven quiet rivers");
    let changes: [fn(&mut Head); 4] = [
        |head| head.generation = 9,
        |head| head.cost = Cost(Params::new(8 * 1024, 2, 1).unwrap()),
        |head| head.salt[0] ^= 1,
        |head| head.account = ALICE,
    ];
    for (at, change) in changes.into_iter().enumerate() {
        let mut vault = vault(None);
        change(&mut vault.head);
        assert_eq!(vault.open(ALICE, 0, &right, None).is_ok(), at == 3);
    }
    let mut lent = vault(None);
    lent.head.account = AccountId([2; 16]);
    assert_eq!(lent.open(AccountId([2; 16]), 0, &right, None), Err(OpenVaultError::Rejected));
    let mut shared = vault(Some(&share(0)));
    shared.head.with_share = false;
    assert_eq!(shared.open(ALICE, 0, &right, None), Err(OpenVaultError::Rejected));
}

#[test]
fn the_passphrase_changes() {
    let (old, new) = (phrase("seven quiet rivers"), phrase("eight loud mountains"));
    let first = vault(None);
    let second =
        first.change_passphrase((&old, None), (&new, Some(&share(1))), COST, &mut fill_random).unwrap();
    assert_eq!((second.generation(), second.needs_share(), second.account()), (2, true, ALICE));
    assert_eq!(*second.open(ALICE, 2, &new, Some(&share(1))).unwrap(), b"keys");
    assert_eq!(second.open(ALICE, 2, &old, Some(&share(1))), Err(OpenVaultError::Rejected));
    let wrong = first.change_passphrase((&new, None), (&old, None), COST, &mut fill_random);
    assert_eq!(wrong, Err(ChangeVaultError::Open(OpenVaultError::Rejected)));
}

#[test]
fn short_passphrases_and_large_contents_are_refused() {
    let seal = |passphrase: &str, content: &[u8]| {
        Vault::create(ALICE, 1, COST, &phrase(passphrase), None, content, &mut fill_random)
    };
    assert_eq!(seal("fourteen chars", b""), Err(SealVaultError::PassphraseTooShort { got: 14 }));
    let got = limits::VAULT_CONTENT_BYTES_MAX + 1;
    assert_eq!(seal("seven quiet rivers", &vec![0; got]), Err(SealVaultError::ContentTooLong { got }));
    let fullest = seal("seven quiet rivers", &vec![0; got - 1]).unwrap();
    assert_eq!(Vault::parse(&fullest.to_bytes()), Ok(fullest));
}

#[test]
fn a_share_is_given_out_so_often() {
    let mut record = VaultShareRecord::generate(ALICE, Timestamp(1_000), &mut fill_random).unwrap();
    let first = record.give(Timestamp(1_000)).unwrap();
    for _ in 1..SHARE_GIVEN_MAX {
        assert_eq!(record.give(Timestamp(2_000)).as_ref(), Ok(&first));
    }
    let until = Timestamp(1_000 + SHARE_WINDOW_MS);
    assert_eq!(record.give(Timestamp(2_000)), Err(until));
    let stored = VaultShareRecord::parse(&record.danger_to_bytes()).unwrap();
    assert_eq!(stored, record);
    // A clock that is set back is no way around.
    assert_eq!(record.give(Timestamp(0)), Err(Timestamp(SHARE_WINDOW_MS)));
    assert!(record.give(Timestamp(SHARE_WINDOW_MS)).is_ok());
    assert_eq!(format!("{first:?}"), "VaultShare(redacted)");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_change_is_refused(at: prop::sample::Index, to: u8) {
        let vault = vault(None);
        let mut bytes = vault.to_bytes();
        let at = at.index(bytes.len());
        prop_assume!(bytes[at] != to);
        bytes[at] = to;
        // A cost that was raised by a forger may be the highest there is; it is refused by time, so it is left out
        // here.
        if let Ok(changed) = Vault::parse(&bytes) && changed.head.cost == COST {
            let opened = changed.open(ALICE, 0, &phrase("seven quiet rivers"), None);
            prop_assert!(opened.is_err());
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
        if let Ok(vault) = Vault::parse(&bytes) {
            prop_assert_eq!(vault.to_bytes(), &*bytes);
        }
        if let Ok(record) = VaultShareRecord::parse(&bytes) {
            prop_assert_eq!(&*record.danger_to_bytes(), &*bytes);
        }
    }
}
