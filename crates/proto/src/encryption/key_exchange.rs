//! Diffie-Hellman over the specification's 768-bit prime.

use std::fmt;

use crypto_bigint::modular::ConstMontyForm;
use crypto_bigint::{Encoding, U192, U768, const_monty_params};

use super::EncryptionError;

const_monty_params!(
    Prime,
    U768,
    "ffffffffffffffffc90fdaa22168c234c4c6628b80dc1cd129024e088a67cc74\
     020bbea63b139b22514a08798e3404ddef9519b3cd3a431b302b0a6df25f1437\
     4fe1356d6d51c245e485b576625e7ec6f44c42e9a63a36210000000000090563",
    "The specification's prime."
);

type Residue = ConstMontyForm<Prime, { U768::LIMBS }>;

/// The length of a public key in bytes.
pub const PUBLIC_KEY_LEN: usize = 96;

/// A private key: 160 random bits from the operating system, as the specification recommends.
pub type PrivateKey = [u8; 20];

/// The keys of one side for one handshake.
pub struct KeyPair {
    secret: U192,
    public: [u8; PUBLIC_KEY_LEN],
}

/// The shared secret, padded with leading zeros to its full length, so that a shorter number has the same hash on
/// both sides.
pub(super) struct SharedSecret(pub [u8; PUBLIC_KEY_LEN]);

impl KeyPair {
    /// Computes the key pair of a private key. Takes some 100 µs.
    pub fn new(private: PrivateKey) -> Self {
        let mut padded = [0; 24];
        padded[4..].copy_from_slice(&private);
        let secret = U192::from_be_bytes(padded.into());
        let two = Residue::new(&U768::from_u8(2));
        let public = two.pow_bounded_exp(&secret, PRIVATE_BITS).retrieve().to_be_bytes().into();
        Self { secret, public }
    }

    /// Returns the public key.
    pub fn public(&self) -> &[u8; PUBLIC_KEY_LEN] {
        &self.public
    }

    /// Computes the secret shared with the owner of the public key `theirs`. Takes some 100 µs.
    ///
    /// # Errors
    /// [`EncryptionError::WeakKey`] for keys whose powers are known to anybody: 0, 1 and −1.
    pub(super) fn share(
        self,
        theirs: &[u8; PUBLIC_KEY_LEN],
    ) -> Result<SharedSecret, EncryptionError> {
        let theirs = Residue::new(&U768::from_be_bytes((*theirs).into()));
        if theirs == Residue::ZERO || theirs == Residue::ONE || theirs == -Residue::ONE {
            return Err(EncryptionError::WeakKey);
        }
        let shared = theirs.pow_bounded_exp(&self.secret, PRIVATE_BITS);
        Ok(SharedSecret(shared.retrieve().to_be_bytes().into()))
    }
}

impl fmt::Debug for KeyPair {
    /// Shows nothing of the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyPair").finish_non_exhaustive()
    }
}

impl fmt::Debug for SharedSecret {
    /// Shows nothing of it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedSecret").finish_non_exhaustive()
    }
}

const PRIVATE_BITS: u32 = 160;
