//! Certificates made on the spot, good ones and bad ones.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use super::folder::Folder;
use super::programs;

/// A certificate and its private key, as files in PEM.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The certificate alone.
    pub certificate: PathBuf,
    /// PKCS #8, P-256.
    pub key: PathBuf,
}

/// Two authorities that do not know each other, and what a server shows. The files are gone when this is dropped.
#[derive(Debug)]
pub struct Certs {
    folder: Folder,
    clients: AtomicU64,
    /// The certificate of the authority that signed all but what is called foreign.
    pub ca: PathBuf,
    /// The certificate of another authority.
    pub foreign_ca: PathBuf,
    /// For `localhost` and 127.0.0.1.
    pub localhost: Identity,
    /// For `elsewhere.example` only.
    pub elsewhere: Identity,
    /// For `localhost` and 127.0.0.1, until the end of 2020.
    pub expired: Identity,
}

const CA: &str = "ca";
const FOREIGN_CA: &str = "foreign-ca";
const LOCALHOST: &str = "DNS:localhost,IP:127.0.0.1";
const VALID: [&str; 2] = ["20200101000000Z", "21200101000000Z"];
const OVER: [&str; 2] = ["20200101000000Z", "20210101000000Z"];

/// What `openssl ca` wants to know. Nothing of it is read by clients.
const CONFIG: &str = "\
[ca]
default_ca = default
[default]
database = index
rand_serial = yes
unique_subject = no
default_md = sha256
policy = policy
new_certs_dir = .
[policy]
commonName = supplied
";

impl Certs {
    /// Makes all of them: some ten runs of `openssl`.
    ///
    /// # Errors
    /// If `openssl` is not there: `scripts/servers` installs it.
    pub fn make() -> io::Result<Self> {
        let folder = Folder::new()?;
        let authority = |name: &str| {
            let key = folder.join(&format!("{name}.key"));
            make_key(folder.path(), name)?;
            let certificate = folder.join(&format!("{name}.pem"));
            let mut command = openssl(folder.path());
            command.args(["req", "-x509", "-sha256", "-days", "36500", "-subj", &format!("/CN={name}")]);
            command.args(["-addext", "keyUsage=critical,keyCertSign,cRLSign"]);
            programs::run(command.arg("-key").arg(key).arg("-out").arg(&certificate))?;
            Ok::<_, io::Error>(certificate)
        };
        let ca = authority(CA)?;
        let foreign_ca = authority(FOREIGN_CA)?;
        let sign = |name: &str, host: &str, valid| sign(folder.path(), CA, name, "localhost", host, valid);
        Ok(Self {
            ca,
            foreign_ca,
            localhost: sign("localhost", LOCALHOST, VALID)?,
            elsewhere: sign("elsewhere", "DNS:elsewhere.example", VALID)?,
            expired: sign("expired", LOCALHOST, OVER)?,
            folder,
            clients: AtomicU64::new(0),
        })
    }

    /// What a client shows. Servers that name clients by their certificates know it by this common name.
    ///
    /// # Errors
    /// If `openssl` fails.
    pub fn client(&self, common_name: &str) -> io::Result<Identity> {
        self.sign_client(CA, common_name)
    }

    /// The same, signed by the authority that nobody trusts.
    ///
    /// # Errors
    /// If `openssl` fails.
    pub fn foreign_client(&self, common_name: &str) -> io::Result<Identity> {
        self.sign_client(FOREIGN_CA, common_name)
    }

    fn sign_client(&self, authority: &str, common_name: &str) -> io::Result<Identity> {
        let name = format!("client-{}", self.clients.fetch_add(1, Ordering::Relaxed));
        let host = format!("DNS:{common_name}");
        sign(self.folder.path(), authority, &name, common_name, &host, VALID)
    }
}

fn openssl(folder: &Path) -> Command {
    let mut command = Command::new("openssl");
    command.current_dir(folder);
    command
}

fn make_key(folder: &Path, name: &str) -> io::Result<()> {
    let mut command = openssl(folder);
    command.args(["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out"]);
    programs::run(command.arg(format!("{name}.key")))
}

fn sign(
    folder: &Path,
    authority: &str,
    name: &str,
    common_name: &str,
    names: &str,
    [from, until]: [&str; 2],
) -> io::Result<Identity> {
    make_key(folder, name)?;
    let [request, certificate, key] = ["csr", "pem", "key"].map(|kind| folder.join(format!("{name}.{kind}")));
    let mut command = openssl(folder);
    command.args(["req", "-new", "-subj", &format!("/CN={common_name}"), "-key"]).arg(&key);
    programs::run(command.arg("-out").arg(&request))?;

    // The list of what was signed and the settings are of this one run: several threads may sign at once.
    let desk = folder.join(format!("{name}.desk"));
    fs::create_dir(&desk)?;
    fs::write(desk.join("index"), "")?;
    fs::write(desk.join("config"), CONFIG)?;
    let extensions = format!(
        "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n\
         extendedKeyUsage=serverAuth,clientAuth\nsubjectAltName={names}\n"
    );
    fs::write(desk.join("extensions"), extensions)?;
    let mut command = openssl(&desk);
    command.args(["ca", "-batch", "-notext", "-config", "config", "-extfile", "extensions"]);
    command.args(["-startdate", from, "-enddate", until, "-in"]).arg(&request).arg("-out").arg(&certificate);
    command.arg("-cert").arg(folder.join(format!("{authority}.pem")));
    command.arg("-keyfile").arg(folder.join(format!("{authority}.key")));
    programs::run(&mut command)?;
    Ok(Identity { certificate, key })
}
