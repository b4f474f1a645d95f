//! Keys: what names and cuts things, what seals them, what opens an archive
//! or a keyring under a passphrase, and the recovery phrase.
//!
//! Promises: every key is derived under its own context string, so no two
//! purposes share one; parameters read from a file are capped before any work
//! is done for them; secrets are wiped when dropped and have no `Debug`.
//! Never: draws randomness (it is an argument), touches a disk.
//! Tested by the unit tests below (BIP-39 and RFC vectors) and `tests/golden.rs`.

use crate::bytes::Reader;
use crate::error::{FormatError, Result};
use crate::id::{ContentHash, DeviceId, NameHash, PortalId};
use crate::limits::{MAX_ARGON_LANES, MAX_ARGON_MEMORY_KIB, MAX_ARGON_PASSES};
use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{ChaCha20Poly1305, Key as AeadKey, Nonce, Tag};
use ed25519_dalek::Signer;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, UnboundKey};
use warp_kernels::GearTable;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// 32 secret bytes, wiped on drop.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Secret([u8; 32]);

impl Secret {
    /// Takes over the bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes, for storing them sealed.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// From a portal's local secret: what seals this device's memory of
    /// stored contents, apart from its journal.
    #[must_use]
    pub fn for_dedup(&self) -> Self {
        Self(self.derive("warp v1 dedup log"))
    }

    /// From a portal's local secret: what seals its list of snapshots.
    #[must_use]
    pub fn for_snapshots(&self) -> Self {
        Self(self.derive("warp v1 snapshots"))
    }

    /// From a portal's root secret: what every member can show to have.
    #[must_use]
    pub fn for_access(&self) -> Self {
        Self(self.derive("warp v1 portal access"))
    }

    /// From an owner's keyring key: the secret of an epoch that begins behind
    /// the record with this hash.
    #[must_use]
    pub(crate) fn for_epoch(&self, portal: &PortalId, epoch: u32, before: &[u8; 32]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("warp v1 epoch secret");
        hasher.update(&self.0).update(&portal.0).update(&epoch.to_le_bytes()).update(before);
        Self(*hasher.finalize().as_bytes())
    }

    /// From a device's seed: the X25519 key to which it is handed secrets.
    #[must_use]
    pub(crate) fn for_wraps(&self) -> Self {
        Self(self.derive("warp v1 device wrap key"))
    }

    /// From a portal's local secret: the key of this device's inode numbers.
    #[must_use]
    pub fn for_numbers(&self) -> [u8; 32] {
        self.derive("warp v1 inode numbers")
    }

    fn derive(&self, context: &str) -> [u8; 32] {
        blake3::derive_key(context, &self.0)
    }
}

/// The keys that name content and choose cut points. They belong to a portal
/// or an archive and never rotate.
pub struct NamingKeys {
    hash: [u8; 32],
    node_hash: [u8; 32],
    name: [u8; 32],
    node_cut: [u8; 32],
    gear: GearTable,
}

impl NamingKeys {
    /// From the portal's (or the sealed archive's) root secret.
    pub fn derive(root: &Secret) -> Self {
        let mut gear_bytes = [0u8; 256 * 8];
        let seed = root.derive("warp v1 gear table");
        blake3::Hasher::new_keyed(&seed).finalize_xof().fill(&mut gear_bytes);
        let mut table = [0u64; 256];
        for (number, bytes) in table.iter_mut().zip(gear_bytes.as_chunks::<8>().0) {
            *number = u64::from_le_bytes(*bytes);
        }
        Self {
            hash: root.derive("warp v1 content hash"),
            node_hash: root.derive("warp v1 node hash"),
            name: root.derive("warp v1 name hash"),
            node_cut: root.derive("warp v1 node cut"),
            gear: GearTable::new(table),
        }
    }

    /// The keys of unsealed archives: a public constant (32 zero bytes as
    /// root secret), so that equal input gives equal archives everywhere.
    pub fn public() -> Self {
        Self::derive(&Secret::new([0; 32]))
    }

    /// The keyed hash that names plain content.
    pub fn content_hash(&self, plain: &[u8]) -> ContentHash {
        ContentHash(*blake3::keyed_hash(&self.hash, plain).as_bytes())
    }

    /// A hasher for tree nodes. Its key is another than that of file content,
    /// so that no file can have a node's hash.
    pub(crate) fn node_hasher(&self) -> blake3::Hasher {
        blake3::Hasher::new_keyed(&self.node_hash)
    }

    /// The keyed hash under which a name is filed in its directory.
    pub fn name_hash(&self, name: &[u8]) -> NameHash {
        let hash = blake3::keyed_hash(&self.name, name);
        let mut short = [0; 16];
        short.copy_from_slice(&hash.as_bytes()[..16]);
        NameHash(short)
    }

    /// 32 bits that decide whether a tree node ends after this key.
    pub(crate) fn node_cut(&self, level: u8, key: &[u8]) -> u32 {
        let mut hasher = blake3::Hasher::new_keyed(&self.node_cut);
        hasher.update(&[level]).update(key);
        let mut bits = [0; 4];
        bits.copy_from_slice(&hasher.finalize().as_bytes()[..4]);
        u32::from_le_bytes(bits)
    }

    pub(crate) fn gear(&self) -> &GearTable {
        &self.gear
    }
}

impl Drop for NamingKeys {
    fn drop(&mut self) {
        [&mut self.hash, &mut self.node_hash, &mut self.name, &mut self.node_cut]
            .into_iter()
            .for_each(Zeroize::zeroize);
    }
}

/// What seals the chunks of one epoch.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct ContentSecret {
    siv: [u8; 32],
    chunk: [u8; 32],
}

impl ContentSecret {
    /// The content secret of epoch `epoch` under this root secret.
    pub fn derive(root: &Secret, epoch: u32) -> Self {
        let mut material = Zeroizing::new([0u8; 36]);
        material[..32].copy_from_slice(root.expose());
        material[32..].copy_from_slice(&epoch.to_le_bytes());
        Self {
            siv: blake3::derive_key("warp v1 chunk siv", &*material),
            chunk: blake3::derive_key("warp v1 chunk secret", &*material),
        }
    }

    /// The synthetic IV over everything that will be sealed.
    pub(crate) fn siv(&self, header: &[u8], packed: &[u8]) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(&self.siv);
        hasher.update(header).update(packed);
        *hasher.finalize().as_bytes()
    }

    /// The AEAD of the one chunk with this synthetic IV.
    pub(crate) fn aead(&self, siv: &[u8; 32]) -> ChunkAead {
        ChunkAead::new(&self.chunk_key(siv))
    }

    /// The key of the one chunk with this synthetic IV.
    fn chunk_key(&self, siv: &[u8; 32]) -> Zeroizing<[u8; 32]> {
        let mut material = Zeroizing::new([0u8; 64]);
        material[..32].copy_from_slice(&self.chunk);
        material[32..].copy_from_slice(siv);
        Zeroizing::new(blake3::derive_key("warp v1 chunk key", &*material))
    }
}

/// ChaCha20-Poly1305 under a key that seals one chunk, so the nonce is
/// constant.
///
/// By `ring`, which the transport brings in any case: it costs less CPU than the
/// `chacha20poly1305` crate, which seals all else and is what the tests compare
/// it with.
pub(crate) struct ChunkAead(LessSafeKey);

impl ChunkAead {
    fn new(key: &[u8; 32]) -> Self {
        let key = UnboundKey::new(&CHACHA20_POLY1305, key).expect("the cipher's key length");
        Self(LessSafeKey::new(key))
    }

    /// Seals in place; gives the tag.
    pub(crate) fn seal(&self, associated: &[u8], body: &mut [u8]) -> [u8; 16] {
        let tag = self
            .0
            .seal_in_place_separate_tag(
                ring::aead::Nonce::assume_unique_for_key(SINGLE_USE_NONCE),
                Aad::from(associated),
                body,
            )
            .expect("a chunk is far below the cipher's limit");
        tag.as_ref().try_into().expect("the cipher's tag length")
    }

    /// Opens in place; `None` if the bytes were not sealed under this key.
    pub(crate) fn open(&self, associated: &[u8], body: &mut [u8], tag: [u8; 16]) -> Option<()> {
        let nonce = ring::aead::Nonce::assume_unique_for_key(SINGLE_USE_NONCE);
        let associated = Aad::from(associated);
        self.0.open_in_place_separate_tag(nonce, associated, tag.into(), body, 0..).ok().map(drop)
    }
}

/// The nonce of every single-use key.
pub(crate) const SINGLE_USE_NONCE: [u8; 12] = [0; 12];

/// Cost of Argon2id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArgonCost {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

impl ArgonCost {
    /// The second recommended choice of RFC 9106: 64 MiB, 3 passes, 4 lanes.
    pub const RECOMMENDED: Self = Self { memory_kib: 64 << 10, passes: 3, lanes: 4 };
}

/// A secret wrapped under a passphrase: 108 bytes on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassphraseSlot {
    cost: ArgonCost,
    salt: [u8; 16],
    commitment: [u8; 32],
    wrapped: [u8; 32],
    tag: [u8; 16],
}

impl PassphraseSlot {
    /// Bytes of an encoded slot.
    pub const LEN: usize = 12 + 16 + 32 + 32 + 16;

    /// Wraps `secret`. `salt` must be fresh random bytes.
    pub fn wrap(
        secret: &Secret,
        passphrase: &[u8],
        cost: ArgonCost,
        salt: [u8; 16],
    ) -> Result<Self> {
        let (commitment, aead) = Self::stretch(passphrase, cost, &salt)?;
        let mut wrapped = *secret.expose();
        let tag = aead
            .encrypt_inout_detached(
                &Nonce::from(SINGLE_USE_NONCE),
                &Self::associated(cost, &salt),
                wrapped.as_mut_slice().into(),
            )
            .map_err(|_| FormatError::Invalid { at: "passphrase slot" })?;
        Ok(Self { cost, salt, commitment, wrapped, tag: tag.into() })
    }

    /// The secret, if the passphrase is right. The commitment is compared
    /// first, so one slot cannot be made to open under two passphrases.
    pub fn unwrap(&self, passphrase: &[u8]) -> Result<Secret> {
        let (commitment, aead) = Self::stretch(passphrase, self.cost, &self.salt)?;
        // Both sides are hashes of a stretched passphrase: comparing them in
        // constant time is blake3's own comparison.
        if blake3::Hash::from_bytes(commitment) != blake3::Hash::from_bytes(self.commitment) {
            return Err(FormatError::WrongKey { what: "passphrase" });
        }
        let mut secret = Zeroizing::new(self.wrapped);
        aead.decrypt_inout_detached(
            &Nonce::from(SINGLE_USE_NONCE),
            &Self::associated(self.cost, &self.salt),
            secret.as_mut_slice().into(),
            &Tag::from(self.tag),
        )
        .map_err(|_| FormatError::Checksum { at: "passphrase slot" })?;
        Ok(Secret::new(*secret))
    }

    fn associated(cost: ArgonCost, salt: &[u8; 16]) -> [u8; 28] {
        let mut out = [0; 28];
        out[..4].copy_from_slice(&cost.memory_kib.to_le_bytes());
        out[4..8].copy_from_slice(&cost.passes.to_le_bytes());
        out[8..12].copy_from_slice(&cost.lanes.to_le_bytes());
        out[12..].copy_from_slice(salt);
        out
    }

    fn stretch(
        passphrase: &[u8],
        cost: ArgonCost,
        salt: &[u8; 16],
    ) -> Result<([u8; 32], ChaCha20Poly1305)> {
        let params = argon2::Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(32))
            .map_err(|_| FormatError::Invalid { at: "passphrase slot cost" })?;
        let argon =
            argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
        let mut stretched = Zeroizing::new([0u8; 32]);
        argon
            .hash_password_into(passphrase, salt, stretched.as_mut_slice())
            .map_err(|_| FormatError::Invalid { at: "passphrase slot cost" })?;
        let commitment = blake3::derive_key("warp v1 slot commitment", &*stretched);
        let key = Zeroizing::new(blake3::derive_key("warp v1 slot key", &*stretched));
        Ok((commitment, ChaCha20Poly1305::new(&AeadKey::from(*key))))
    }

    /// Appends the encoded slot.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&Self::associated(self.cost, &self.salt));
        out.extend_from_slice(&self.commitment);
        out.extend_from_slice(&self.wrapped);
        out.extend_from_slice(&self.tag);
    }

    pub(crate) fn decode(r: &mut Reader<'_>) -> Result<Self> {
        let at = "passphrase slot";
        let cost = ArgonCost { memory_kib: r.u32(at)?, passes: r.u32(at)?, lanes: r.u32(at)? };
        for (value, limit) in [
            (cost.memory_kib, MAX_ARGON_MEMORY_KIB),
            (cost.passes, MAX_ARGON_PASSES),
            (cost.lanes, MAX_ARGON_LANES),
        ] {
            if value > limit {
                return Err(FormatError::Limit { at, value: value.into(), limit: limit.into() });
            }
        }
        Ok(Self {
            cost,
            salt: r.array(at)?,
            commitment: r.array(at)?,
            wrapped: r.array(at)?,
            tag: r.array(at)?,
        })
    }
}

/// An Ed25519 key that signs archives and heads.
pub struct SigningKey(ed25519_dalek::SigningKey);

impl SigningKey {
    /// From its 32-byte seed.
    pub fn from_seed(seed: &Secret) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(seed.expose()))
    }

    /// The public half.
    pub fn device_id(&self) -> DeviceId {
        DeviceId(self.0.verifying_key().to_bytes())
    }

    /// Signs `message` under `context`, which keeps a signature made for one
    /// purpose from being used for another.
    pub(crate) fn sign(&self, context: &str, message: &[u8]) -> [u8; 64] {
        self.0.sign(&signed_digest(context, message)).to_bytes()
    }
}

/// Checks a signature of [`SigningKey::sign`].
pub(crate) fn verify_signature(
    signer: &DeviceId,
    context: &str,
    message: &[u8],
    signature: &[u8; 64],
    what: &'static str,
) -> Result<()> {
    let key = ed25519_dalek::VerifyingKey::from_bytes(&signer.0)
        .map_err(|_| FormatError::BadSignature { what })?;
    key.verify_strict(
        &signed_digest(context, message),
        &ed25519_dalek::Signature::from_bytes(signature),
    )
    .map_err(|_| FormatError::BadSignature { what })
}

fn signed_digest(context: &str, message: &[u8]) -> [u8; 32] {
    blake3::derive_key(context, message)
}

/// The owner's 24 words, from which everything else can be brought back.
pub struct RecoveryPhrase(bip39::Mnemonic);

impl RecoveryPhrase {
    /// From 32 fresh random bytes.
    pub fn from_entropy(entropy: &Secret) -> Result<Self> {
        bip39::Mnemonic::from_entropy(entropy.expose())
            .map(Self)
            .map_err(|_| FormatError::Invalid { at: "recovery phrase" })
    }

    /// From words as a person types them: any case, any white space.
    pub fn parse(words: &str) -> Result<Self> {
        let normal = Zeroizing::new(
            words.split_whitespace().map(str::to_lowercase).collect::<Vec<_>>().join(" "),
        );
        bip39::Mnemonic::parse_in_normalized(bip39::Language::English, &normal)
            .map(Self)
            .map_err(|_| FormatError::WrongKey { what: "recovery phrase" })
    }

    /// The 32 bytes behind 24 words. A phrase of another length is refused.
    pub fn entropy(&self) -> Result<Secret> {
        let bytes = Zeroizing::new(self.0.to_entropy());
        let whole: [u8; 32] = bytes
            .as_slice()
            .try_into()
            .map_err(|_| FormatError::WrongKey { what: "recovery phrase" })?;
        Ok(Secret::new(whole))
    }

    /// The words.
    pub fn words(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.0.words()
    }

    /// The owner's signing key and the key that seals the keyring, by
    /// HKDF-SHA-512 of the BIP-39 seed under one context each.
    pub fn owner_keys(&self) -> (SigningKey, Secret) {
        let seed = Zeroizing::new(self.0.to_seed_normalized(""));
        (
            SigningKey::from_seed(&hkdf(&seed, b"warp v1 owner key")),
            hkdf(&seed, b"warp v1 keyring key"),
        )
    }
}

fn hkdf(seed: &[u8; 64], info: &[u8]) -> Secret {
    let mut out = [0u8; 32];
    hkdf::Hkdf::<sha2::Sha512>::new(None, seed)
        .expand(info, &mut out)
        .expect("32 bytes are far below the limit of HKDF");
    let secret = Secret::new(out);
    out.zeroize();
    secret
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHEAP: ArgonCost = ArgonCost { memory_kib: 64, passes: 1, lanes: 1 };

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    #[test]
    fn chunks_are_sealed_as_the_named_crate_seals_them() {
        let secret = ContentSecret::derive(&Secret::new([3; 32]), 1);
        let lens = [0, 1, 15, 16, 17, 63, 64, 65, 255, 256, 1000, 4096, 65_537, 1 << 20];
        for (n, len) in (0..).zip(lens) {
            let siv = [n; 32];
            let mut plain = vec![0; len];
            blake3::Hasher::new().update(&siv).finalize_xof().fill(&mut plain);
            let other = ChaCha20Poly1305::new(&AeadKey::from(*secret.chunk_key(&siv)));
            let mut expected = plain.clone();
            let nonce = Nonce::from(SINGLE_USE_NONCE);
            let body = expected.as_mut_slice().into();
            let expected_tag = other.encrypt_inout_detached(&nonce, b"header", body).unwrap();

            let mut body = plain.clone();
            let tag = secret.aead(&siv).seal(b"header", &mut body);
            assert_eq!((&body, tag), (&expected, expected_tag.into()), "{len} bytes");
            assert_eq!(secret.aead(&siv).open(b"header", &mut body, tag), Some(()));
            assert_eq!(body, plain);

            let mut bad = tag;
            bad[15] ^= 1;
            assert_eq!(secret.aead(&siv).open(b"header", &mut expected.clone(), bad), None);
            assert_eq!(secret.aead(&siv).open(b"heeder", &mut expected.clone(), tag), None);
            if let Some(byte) = expected.last_mut() {
                *byte ^= 0x80;
                assert_eq!(secret.aead(&siv).open(b"header", &mut expected, tag), None);
            }
        }
    }

    #[test]
    fn a_slot_opens_with_its_passphrase_and_no_other() {
        let secret = Secret::new([7; 32]);
        let slot = PassphraseSlot::wrap(&secret, b"correct horse", CHEAP, [9; 16]).unwrap();
        assert_eq!(slot.unwrap(b"correct horse").unwrap().expose(), secret.expose());
        assert_eq!(
            slot.unwrap(b"correct house").err(),
            Some(FormatError::WrongKey { what: "passphrase" })
        );
    }

    #[test]
    fn a_slot_that_asks_for_too_much_memory_is_refused_before_any_work() {
        let mut bytes = Vec::new();
        PassphraseSlot::wrap(&Secret::new([1; 32]), b"x", CHEAP, [0; 16])
            .unwrap()
            .encode(&mut bytes);
        assert_eq!(bytes.len(), PassphraseSlot::LEN);
        bytes[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(
            PassphraseSlot::decode(&mut Reader::new(&bytes)),
            Err(FormatError::Limit { .. })
        ));
    }

    /// Vectors of the BIP's reference list (entropy, words; the seed of our
    /// use has an empty passphrase, so it is checked against the library's
    /// own PBKDF2 through the all-zero vector's known words only).
    #[test]
    fn bip39_vectors() {
        let cases: [([u8; 32], &str); 4] = [
            (
                [0x00; 32],
                "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon art",
            ),
            (
                [0x7f; 32],
                "legal winner thank year wave sausage worth useful legal winner thank year wave sausage worth useful legal winner thank year wave sausage worth title",
            ),
            (
                [0x80; 32],
                "letter advice cage absurd amount doctor acoustic avoid letter advice cage absurd amount doctor acoustic avoid letter advice cage absurd amount doctor acoustic bless",
            ),
            (
                [0xff; 32],
                "zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo vote",
            ),
        ];
        for (entropy, words) in cases {
            let made = RecoveryPhrase::from_entropy(&Secret::new(entropy)).unwrap();
            assert_eq!(made.words().collect::<Vec<_>>().join(" "), words);
            let parsed = RecoveryPhrase::parse(&words.to_uppercase().replace(' ', "\n  ")).unwrap();
            assert_eq!(parsed.0.to_entropy(), entropy);
        }
        // The reference list's seed for the all-zero entropy, passphrase TREZOR.
        let zero = RecoveryPhrase::parse(cases[0].1).unwrap();
        assert_eq!(
            hex(&zero.0.to_seed_normalized("TREZOR")),
            "bda85446c68413707090a52022edd26a1c9462295029f2e60cd7c4f2bbd3097170af7a4d73245cafa9c3cca8d561a7c3de6f5d4a10be8ed2a5e608d68f92fcc8"
        );
    }

    #[test]
    fn a_phrase_with_a_wrong_word_order_is_refused() {
        let words = "zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo vote zoo";
        assert!(RecoveryPhrase::parse(words).is_err());
    }

    #[test]
    fn owner_and_keyring_keys_differ_and_are_stable() {
        let phrase = RecoveryPhrase::from_entropy(&Secret::new([3; 32])).unwrap();
        let (owner, keyring) = phrase.owner_keys();
        let (again, _) = phrase.owner_keys();
        assert_eq!(owner.device_id(), again.device_id());
        assert_ne!(&owner.device_id().0, keyring.expose());
    }

    /// RFC 5869 has vectors for SHA-256 only; this one is its first case run
    /// through the generic code with the hash the RFC names.
    #[test]
    fn hkdf_is_the_rfc_5869_construction() {
        let prk = hkdf::Hkdf::<sha2::Sha256>::new(
            Some(&core::array::from_fn::<u8, 13, _>(|i| i as u8)),
            &[0x0b; 22],
        );
        let mut out = [0u8; 42];
        prk.expand(&core::array::from_fn::<u8, 10, _>(|i| 0xf0 + i as u8), &mut out).unwrap();
        assert_eq!(
            hex(&out),
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
        );
    }

    #[test]
    fn a_signature_holds_for_its_context_only() {
        let key = SigningKey::from_seed(&Secret::new([5; 32]));
        let signature = key.sign("a", b"message");
        let id = key.device_id();
        assert!(verify_signature(&id, "a", b"message", &signature, "x").is_ok());
        assert!(verify_signature(&id, "b", b"message", &signature, "x").is_err());
        assert!(verify_signature(&id, "a", b"messagf", &signature, "x").is_err());
    }

    #[test]
    fn no_two_purposes_share_a_key() {
        let root = Secret::new([4; 32]);
        let naming = NamingKeys::derive(&root);
        let e0 = ContentSecret::derive(&root, 0);
        let e1 = ContentSecret::derive(&root, 1);
        let all = [
            naming.hash,
            naming.node_hash,
            naming.name,
            naming.node_cut,
            e0.siv,
            e0.chunk,
            e1.siv,
            e1.chunk,
        ];
        for (i, a) in all.iter().enumerate() {
            assert!(all[i + 1..].iter().all(|b| a != b));
        }
    }
}
