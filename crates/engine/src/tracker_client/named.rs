//! A tracker as users name it, and sharing a torrent through its catalogue.

use std::time::Duration;

use super::{Catalogue, CatalogueError, ClientOptions};
use piecework_core::InfoHash;
use piecework_core::metainfo::Metainfo;
use piecework_core::printable;
use piecework_proto::announce::catalogue::{RegisterOptions, Registered};
use piecework_proto::announce::{
    CatalogueUrl, Provenance, TrackerTarget, TrackerUrl, TrackerUrlError,
};

/// A tracker as users name it, with its catalogue if it has one. Each question to the catalogue has
/// ten seconds.
#[derive(Debug, Clone)]
pub struct NamedTracker {
    /// Its name, safe to show.
    pub shown: String,
    /// Where to announce, in tiers.
    pub tiers: Vec<Vec<TrackerUrl>>,
    /// The base address of its catalogue; `None` if it is reached over UDP only.
    pub base: Option<String>,
    /// Who named the tracker, which decides where its address may lead.
    pub provenance: Provenance,
    catalogue: Option<Catalogue>,
}

/// Why a name is not that of a tracker.
#[derive(Debug, thiserror::Error)]
pub enum TrackerNameError {
    /// It is not an address.
    #[error(transparent)]
    Url(#[from] TrackerUrlError),
    /// Its catalogue cannot be asked.
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
}

/// Why a question to the catalogue of a tracker had no answer.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// The tracker has none.
    #[error("it is reached over UDP only")]
    NoCatalogue,
    /// It took too long in all.
    #[error("it did not answer in time")]
    TimedOut,
    /// It cannot be reached, or refuses.
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
}

impl NamedTracker {
    /// Parses a tracker's name: a URL or `HOST:PORT`. `provenance` says who named it.
    ///
    /// # Errors
    /// If it is neither.
    pub fn parse(provenance: Provenance, name: &str) -> Result<Self, TrackerNameError> {
        let target = TrackerTarget::parse(name)?;
        let options = ClientOptions {
            timeout: PATIENCE,
            connect_timeout: PATIENCE,
            ..ClientOptions::default()
        };
        let catalogue = match &target.catalogue {
            Some(base) => Some(Catalogue::named_by(provenance, base, options)?),
            None => None,
        };
        let shown = printable(name).into_owned();
        Ok(Self { shown, tiers: target.tiers, base: target.catalogue, provenance, catalogue })
    }

    /// Returns its tiers in the form of a `.torrent`.
    pub fn urls(&self) -> Vec<Vec<String>> {
        tier_texts(&self.tiers)
    }

    /// Returns its catalogue.
    ///
    /// # Errors
    /// If it has none.
    pub fn catalogue(&self) -> Result<&Catalogue, LookupError> {
        self.catalogue.as_ref().ok_or(LookupError::NoCatalogue)
    }

    /// Waits for the answer to one or several questions.
    ///
    /// # Errors
    /// If they take too long together.
    pub async fn in_time<T>(&self, questions: impl Future<Output = T>) -> Result<T, LookupError> {
        tokio::time::timeout(LOOKUP, questions).await.map_err(|_| LookupError::TimedOut)
    }

    /// Puts a torrent, given as the bytes of a `.torrent`, into the catalogue.
    ///
    /// # Errors
    /// If it cannot be asked or refuses. See [`LookupError::is_absence`].
    pub async fn register(
        &self,
        torrent: &[u8],
        options: RegisterOptions,
    ) -> Result<Registered, LookupError> {
        Ok(self.in_time(self.catalogue()?.register(torrent, options)).await??)
    }

    /// Puts a torrent into the catalogue. Waits for [`REGISTER_AGAIN`] first, and tries again as
    /// often as the tracker is absent.
    ///
    /// # Errors
    /// If the tracker refuses.
    pub async fn register_later(
        &self,
        torrent: &[u8],
        options: RegisterOptions,
    ) -> Result<Registered, LookupError> {
        loop {
            tokio::time::sleep(REGISTER_AGAIN).await;
            match self.register(torrent, options.clone()).await {
                Err(error) if error.is_absence() => {}
                settled => return settled,
            }
        }
    }

    /// Takes a torrent out of the catalogue, with the token that registering returned.
    ///
    /// # Errors
    /// If it cannot be asked or refuses.
    pub async fn remove(&self, info_hash: InfoHash, token: &str) -> Result<(), LookupError> {
        Ok(self.in_time(self.catalogue()?.remove(info_hash, token)).await??)
    }
}

impl LookupError {
    /// Returns whether the tracker cannot be reached now, or cannot do its work, so that the same
    /// question may be answered later.
    pub fn is_absence(&self) -> bool {
        match self {
            Self::NoCatalogue => false,
            Self::TimedOut => true,
            Self::Catalogue(error) => error.is_absence(),
        }
    }
}

/// Returns tiers in the form of a `.torrent`.
pub fn tier_texts(tiers: &[Vec<TrackerUrl>]) -> Vec<Vec<String>> {
    let text = |tier: &Vec<TrackerUrl>| tier.iter().map(|url| url.as_str().to_owned()).collect();
    tiers.iter().map(text).collect()
}

/// Returns the catalogue that a torrent made by Piecework is registered with, if one of `tiers` may
/// have one.
pub fn catalogue_of<'a>(
    metainfo: &Metainfo,
    tiers: impl IntoIterator<Item = &'a TrackerUrl>,
) -> Option<CatalogueUrl> {
    let is_ours = metainfo.created_by().is_some_and(|by| by.starts_with("Piecework "));
    let mut urls = tiers.into_iter().filter(|_| is_ours);
    urls.find_map(CatalogueUrl::of_tracker)
}

/// Time between two attempts to register with a tracker that is absent.
pub const REGISTER_AGAIN: Duration = Duration::from_secs(15);

/// Time for a connection, and for a pause in an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Time for a question in all: a user who asks for what nobody has must know within 15 s.
const LOOKUP: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::super::{CatalogueAnswerError, TransportError};
    use super::*;

    #[test]
    fn a_tracker_that_fails_is_asked_again_and_one_that_refuses_is_not() {
        let refused = |status| CatalogueError::Refused { status, reason: String::new() };
        for status in [408, 429, 500, 503, 507] {
            assert!(refused(status).is_absence(), "{status}");
        }
        for status in [400, 401, 403, 404, 409, 413] {
            assert!(!refused(status).is_absence(), "{status}");
        }
        let address = String::new;
        assert!(CatalogueError::Timeout { address: address() }.is_absence());
        assert!(
            CatalogueError::Unreachable { address: address(), fault: TransportError::NoHost }
                .is_absence()
        );
        assert!(!CatalogueError::BadAnswer(CatalogueAnswerError::CutOff).is_absence());
        assert!(LookupError::TimedOut.is_absence() && !LookupError::NoCatalogue.is_absence());
    }

    #[tokio::test]
    async fn a_tracker_over_udp_has_no_catalogue_and_one_that_is_down_is_absent() {
        let udp = NamedTracker::parse(Provenance::Named, "udp://127.0.0.1:1").unwrap();
        let refused = udp.register(b"", RegisterOptions::default()).await.unwrap_err();
        assert!(matches!(refused, LookupError::NoCatalogue));
        // Nothing listens on port 1.
        let down = NamedTracker::parse(Provenance::Named, "127.0.0.1:1").unwrap();
        let absent = down.register(b"", RegisterOptions::default()).await.unwrap_err();
        assert!(absent.is_absence(), "{absent}");
        assert!(NamedTracker::parse(Provenance::Named, "ftp://tracker.example").is_err());
    }

    /// A server that answers each connection with the next of these.
    async fn serve(answers: Vec<&'static str>) -> std::net::SocketAddr {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        tokio::spawn(async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                // All of it: closing with unread bytes would reset the connection.
                let mut asked = Vec::new();
                while !asked.ends_with(b"\r\n\r\nd") {
                    assert_ne!(stream.read_buf(&mut asked).await.unwrap(), 0);
                }
                stream.write_all(answer.as_bytes()).await.unwrap();
                stream.shutdown().await.unwrap();
            }
        });
        addr
    }

    #[tokio::test]
    async fn registering_goes_on_until_the_tracker_answers() {
        let full =
            "HTTP/1.1 507 Insufficient Storage\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        let refused = "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        let addr = serve(vec![full, refused]).await;
        let tracker = NamedTracker::parse(Provenance::Named, &addr.to_string()).unwrap();
        let options = RegisterOptions::default();
        let first = tracker.register(b"d", options.clone()).await.unwrap_err();
        assert!(first.is_absence(), "{first}");
        let second = tracker.register(b"d", options).await.unwrap_err();
        assert!(!second.is_absence(), "{second}");
    }
}
