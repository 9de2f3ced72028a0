//! PEM: what is in a file, section by section, with the line where each begins.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use rustls::pki_types::pem::{PemObject, SectionKind};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::error::{ConfigError, Place};

/// No file of certificates is longer: that of all public roots has some hundred KiB.
const FILE_MAX: u64 = 16 << 20;

/// What a user gave, and where it came from.
pub(super) struct Pem {
    text: Vec<u8>,
    place: Place,
}

/// A section as it stands in the text.
struct Section<'a> {
    /// Between `-----BEGIN ` and `-----`.
    label: &'a [u8],
    /// From 1 on.
    line: usize,
    text: &'a [u8],
}

impl Pem {
    pub(super) fn read(path: &Path) -> Result<Pem, ConfigError> {
        let mut text = Vec::new();
        let read = File::open(path).and_then(|file| file.take(FILE_MAX + 1).read_to_end(&mut text));
        let file = path.to_owned();
        match read {
            Err(error) => Err(ConfigError::Read { file, error }),
            Ok(len) if len as u64 > FILE_MAX => Err(ConfigError::TooLong { file }),
            Ok(_) => Ok(Pem {
                text,
                place: Place {
                    file: Some(file),
                    line: None,
                },
            }),
        }
    }

    pub(super) fn given(bytes: &[u8]) -> Pem {
        Pem {
            text: bytes.to_owned(),
            place: Place::bytes(),
        }
    }

    /// All certificates in it, at least one.
    pub(super) fn certificates(
        &self,
    ) -> Result<Vec<(Place, CertificateDer<'static>)>, ConfigError> {
        let mut found = Vec::new();
        for section in sections(&self.text).filter(|section| section.label == b"CERTIFICATE") {
            let place = self.place.at(section.line);
            let (kind, der) = decode(&section, &place)?;
            found.extend(CertificateDer::from_pem(kind, der).map(|der| (place, der)));
        }
        if found.is_empty() {
            return Err(ConfigError::NoCertificate {
                place: self.place.clone(),
                found: self.found(),
            });
        }
        Ok(found)
    }

    /// The first private key in it.
    pub(super) fn key(&self) -> Result<(Place, PrivateKeyDer<'static>), ConfigError> {
        for section in sections(&self.text).filter(|s| s.label.ends_with(b"PRIVATE KEY")) {
            let place = self.place.at(section.line);
            if is_encrypted(&section) {
                return Err(ConfigError::EncryptedKey { place });
            }
            // A kind that is not known is passed over, as by everybody.
            let Some((kind, der)) = decode_known(&section, &place)? else {
                continue;
            };
            if let Some(key) = PrivateKeyDer::from_pem(kind, der) {
                return Ok((place, key));
            }
        }
        Err(ConfigError::NoKey {
            place: self.place.clone(),
            found: self.found(),
        })
    }

    /// What there is, for who looked for something else.
    fn found(&self) -> String {
        let mut labels: Vec<_> = sections(&self.text)
            .map(|section| String::from_utf8_lossy(section.label))
            .collect();
        labels.sort();
        labels.dedup();
        // A sequence of ASN.1: how certificates and keys begin in DER.
        let is_der = self.text.first() == Some(&0x30);
        match labels.is_empty() {
            false => format!("only {}", labels.join(", ")),
            true if is_der => "what looks like DER; openssl x509 or openssl pkey, each with -inform der, make PEM of it".to_owned(),
            true if self.text.is_empty() => "nothing: it is empty".to_owned(),
            true => "nothing in PEM format".to_owned(),
        }
    }
}

/// As PKCS #8 says it, and as OpenSSL did before.
fn is_encrypted(section: &Section<'_>) -> bool {
    let mut lines = section.text.split(|byte| *byte == b'\n');
    section.label.starts_with(b"ENCRYPTED ")
        || lines.any(|line| {
            line.starts_with(b"Proc-Type:") && line.trim_ascii_end().ends_with(b"ENCRYPTED")
        })
}

fn decode(section: &Section<'_>, place: &Place) -> Result<(SectionKind, Vec<u8>), ConfigError> {
    PemObject::from_pem_slice(section.text).map_err(|error| ConfigError::Pem {
        place: place.clone(),
        error,
    })
}

fn decode_known(
    section: &Section<'_>,
    place: &Place,
) -> Result<Option<(SectionKind, Vec<u8>)>, ConfigError> {
    match decode(section, place) {
        Err(ConfigError::Pem {
            error: rustls::pki_types::pem::Error::NoItemsFound,
            ..
        }) => Ok(None),
        decoded => decoded.map(Some),
    }
}

/// A section goes from its first line to its last one, or to where another begins: what has no last
/// line is found out when it is decoded.
fn sections(text: &[u8]) -> impl Iterator<Item = Section<'_>> {
    let mut rest = text;
    let mut line = 0;
    // Of the section that has begun: what the text was like there.
    let mut begun: Option<(&[u8], usize, &[u8])> = None;
    std::iter::from_fn(move || {
        loop {
            let here = rest;
            if here.is_empty() {
                let (label, line, text) = begun.take()?;
                return Some(Section { label, line, text });
            }
            let len = here.iter().position(|byte| *byte == b'\n');
            let (this, behind) = here.split_at(len.map_or(here.len(), |at| at + 1));
            rest = behind;
            line += 1;
            if let Some(label) = this.strip_prefix(b"-----BEGIN ") {
                let before = begun.replace((trim_dashes(label), line, here));
                if let Some((label, line, text)) = before {
                    let text = &text[..text.len() - here.len()];
                    return Some(Section { label, line, text });
                }
            } else if this.starts_with(b"-----END ")
                && let Some((label, line, text)) = begun.take()
            {
                let text = &text[..text.len() - behind.len()];
                return Some(Section { label, line, text });
            }
        }
    })
}

/// However many there are: that it should be five is found out when it is decoded.
fn trim_dashes(label: &[u8]) -> &[u8] {
    let mut label = label.trim_ascii_end();
    while let Some(shorter) = label.strip_suffix(b"-") {
        label = shorter;
    }
    label
}
