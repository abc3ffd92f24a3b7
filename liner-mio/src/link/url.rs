//! Lines to devices, as URLs name them.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use liner_proto::config::LineConfig;

/// What a serial line runs at, if nothing else is said.
const BAUD: u32 = 115_200;

/// The slowest and the fastest rate that is taken for one.
const BAUD_RANGE: (u32, u32) = (50, 20_000_000);

/// Where a line to a device is, and what it is like.
///
/// * `serial:///dev/ttyUSB0?baud=115200&parity=none&stop=1&flow=none&duplex=full`: a serial port of this machine. These are the
///   defaults. `parity` is `none`, `even` or `odd`; `stop` 1 or 2 bits; `flow` is `none` or `hardware` (RTS and CTS). Frames are
///   bytes of eight bits, so there are no other data bits than `data=8`, and no `flow=software`. The path is taken as it is
///   written, up to the question mark.
/// * `tcp://HOST:PORT`: a serial-to-TCP bridge. `baud` says what runs behind it.
///
/// `duplex=half` says that only one side of the line can send at a time, as on a pair of RS-485 wires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineUrl {
    text: String,
    place: Place,
    baud: Option<u32>,
    half_duplex: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Serial(SerialSettings),
    /// `host:port`.
    Tcp(String),
}

/// A serial port and how it is set up. Part of a [`LineUrl`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SerialSettings {
    /// Where the port is.
    pub path: PathBuf,
    /// Bits per second, whether the number is a usual one or not.
    pub baud: u32,
    /// The check bit of a byte.
    pub parity: Parity,
    /// Whether a byte ends with two bits instead of one.
    pub two_stop_bits: bool,
    /// Whether RTS and CTS say when either side may send.
    pub hardware_flow: bool,
}

/// The check bit of each byte on a serial line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parity {
    /// There is none.
    None,
    /// The number of ones is even with it.
    Even,
    /// The number of ones is odd with it.
    Odd,
}

/// Why a text is no [`LineUrl`]. Each says what to write.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LineUrlError {
    /// It names no kind of line.
    #[error(
        "`{0}` does not begin with a kind of line: write serial:///dev/ttyUSB0 for a port, or tcp://HOST:PORT for a bridge"
    )]
    NoScheme(String),
    /// It names a kind that does not exist.
    #[error("there is no line of the kind `{0}`: write serial:///dev/ttyUSB0 or tcp://HOST:PORT")]
    UnknownScheme(String),
    /// The path of a port does not begin with a slash, or is missing.
    #[error("a port is named by its whole path: write serial:///dev/ttyUSB0, with three slashes")]
    NoPath,
    /// The address of a bridge is none.
    #[error(
        "a bridge is named by its host and port: write tcp://HOST:PORT, for instance tcp://192.168.1.20:4001"
    )]
    NoAddress,
    /// An option is unknown.
    #[error("there is no option `{name}` for this line: write {known}")]
    UnknownOption {
        /// Its name.
        name: String,
        /// Those that there are.
        known: &'static str,
    },
    /// An option stands there twice.
    #[error("`{0}` stands there twice: write it once")]
    Twice(String),
    /// The value of an option is none for it.
    #[error("`{name}={value}` is not possible: write {wanted}")]
    BadValue {
        /// The option.
        name: &'static str,
        /// What was given.
        value: String,
        /// What can be given.
        wanted: &'static str,
    },
    /// Flow control by bytes that frames hold themselves.
    #[error(
        "flow=software takes two bytes for itself that frames hold too, so they would never pass: write flow=hardware or flow=none"
    )]
    SoftwareFlow,
}

/// The options of a serial line, and those that say something of a bridge too.
const SERIAL_OPTIONS: &str = "baud=, parity=, stop=, flow= or duplex=";
const TCP_OPTIONS: &str = "baud= or duplex=";

impl LineUrl {
    /// The line at a port's path, which may be relative and may have options behind a question mark.
    ///
    /// # Errors
    /// See [`LineUrlError`].
    pub fn from_path(path: &str) -> Result<Self, LineUrlError> {
        let absolute = std::path::absolute(path).map_err(|_| LineUrlError::NoPath)?;
        format!("serial://{}", absolute.display()).parse()
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The port, if it is a serial line of this machine.
    pub const fn serial(&self) -> Option<&SerialSettings> {
        match &self.place {
            Place::Serial(settings) => Some(settings),
            Place::Tcp(_) => None,
        }
    }

    /// Bits per second, if that is known.
    pub const fn baud(&self) -> Option<u32> {
        self.baud
    }

    /// Whether only one side can send at a time.
    pub const fn is_half_duplex(&self) -> bool {
        self.half_duplex
    }

    /// What the core has to know of it.
    pub const fn config(&self) -> LineConfig {
        LineConfig { baud: self.baud, half_duplex: self.half_duplex }
    }

    pub(crate) const fn place(&self) -> &Place {
        &self.place
    }

    /// Whether the other one names the same port or bridge.
    pub(crate) fn is_same_place(&self, other: &Self) -> bool {
        match (&self.place, &other.place) {
            (Place::Serial(one), Place::Serial(two)) => one.path == two.path,
            (Place::Tcp(one), Place::Tcp(two)) => one == two,
            (Place::Serial(_), Place::Tcp(_)) | (Place::Tcp(_), Place::Serial(_)) => false,
        }
    }
}

impl FromStr for LineUrl {
    type Err = LineUrlError;

    fn from_str(text: &str) -> Result<Self, LineUrlError> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(LineUrlError::NoScheme(text.to_owned()));
        };
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        match scheme {
            "serial" => serial(text, place, &mut Options::read(query)?),
            "tcp" => tcp(text, place, &mut Options::read(query)?),
            _ => Err(LineUrlError::UnknownScheme(scheme.to_owned())),
        }
    }
}

impl fmt::Display for LineUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn serial(text: &str, path: &str, options: &mut Options<'_>) -> Result<LineUrl, LineUrlError> {
    if !path.starts_with('/') || path.ends_with('/') {
        return Err(LineUrlError::NoPath);
    }
    let baud = options.baud()?.unwrap_or(BAUD);
    options.one_of("data", "data=8", &[("8", ())])?;
    let parity = options.one_of(
        "parity",
        "parity=none, parity=even or parity=odd",
        &[("none", Parity::None), ("even", Parity::Even), ("odd", Parity::Odd)],
    )?;
    let two_stop_bits = options.one_of("stop", "stop=1 or stop=2", &[("1", false), ("2", true)])?;
    let flow = options.one_of(
        "flow",
        "flow=none or flow=hardware",
        &[("none", Some(false)), ("hardware", Some(true)), ("software", None)],
    )?;
    let hardware_flow = flow.unwrap_or(Some(false)).ok_or(LineUrlError::SoftwareFlow)?;
    let half_duplex = options.half_duplex()?;
    options.end(SERIAL_OPTIONS)?;
    let settings = SerialSettings {
        path: PathBuf::from(path),
        baud,
        parity: parity.unwrap_or(Parity::None),
        two_stop_bits: two_stop_bits.unwrap_or(false),
        hardware_flow,
    };
    Ok(LineUrl { text: text.to_owned(), place: Place::Serial(settings), baud: Some(baud), half_duplex })
}

fn tcp(text: &str, address: &str, options: &mut Options<'_>) -> Result<LineUrl, LineUrlError> {
    let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse());
    if !matches!(port, Some(Ok(1_u16..))) {
        return Err(LineUrlError::NoAddress);
    }
    let (baud, half_duplex) = (options.baud()?, options.half_duplex()?);
    options.end(TCP_OPTIONS)?;
    Ok(LineUrl { text: text.to_owned(), place: Place::Tcp(address.to_owned()), baud, half_duplex })
}

/// The options of a URL that nobody has asked for yet.
struct Options<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Options<'a> {
    fn read(query: &'a str) -> Result<Self, LineUrlError> {
        let mut options: Vec<(&str, &str)> = Vec::new();
        for part in query.split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            if options.iter().any(|(known, _)| *known == name) {
                return Err(LineUrlError::Twice(name.to_owned()));
            }
            options.push((name, value));
        }
        Ok(Self(options))
    }

    fn take(&mut self, name: &str) -> Option<&'a str> {
        let at = self.0.iter().position(|(known, _)| *known == name)?;
        Some(self.0.swap_remove(at).1)
    }

    fn one_of<T: Copy>(
        &mut self,
        name: &'static str,
        wanted: &'static str,
        values: &[(&str, T)],
    ) -> Result<Option<T>, LineUrlError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        match values.iter().find(|(known, _)| *known == value) {
            Some(&(_, meant)) => Ok(Some(meant)),
            None => Err(LineUrlError::BadValue { name, value: value.to_owned(), wanted }),
        }
    }

    fn baud(&mut self) -> Result<Option<u32>, LineUrlError> {
        let Some(value) = self.take("baud") else { return Ok(None) };
        let (least, most) = BAUD_RANGE;
        match value.parse() {
            Ok(baud) if (least..=most).contains(&baud) => Ok(Some(baud)),
            _ => Err(LineUrlError::BadValue {
                name: "baud",
                value: value.to_owned(),
                wanted: "bits per second from 50 to 20000000, for instance baud=115200",
            }),
        }
    }

    fn half_duplex(&mut self) -> Result<bool, LineUrlError> {
        let half = self.one_of("duplex", "duplex=full or duplex=half", &[("full", false), ("half", true)])?;
        Ok(half.unwrap_or(false))
    }

    /// Nothing may be left.
    fn end(&self, known: &'static str) -> Result<(), LineUrlError> {
        match self.0.first() {
            Some((name, _)) => Err(LineUrlError::UnknownOption { name: (*name).to_owned(), known }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> LineUrl {
        text.parse().unwrap()
    }

    fn told(text: &str) -> String {
        text.parse::<LineUrl>().unwrap_err().to_string()
    }

    #[test]
    fn a_port_has_defaults() {
        let url = url("serial:///dev/ttyUSB0");
        let wanted = SerialSettings {
            path: "/dev/ttyUSB0".into(),
            baud: 115_200,
            parity: Parity::None,
            two_stop_bits: false,
            hardware_flow: false,
        };
        assert_eq!(url.serial(), Some(&wanted));
        assert_eq!((url.baud(), url.is_half_duplex()), (Some(115_200), false));
        assert_eq!(url.to_string(), "serial:///dev/ttyUSB0");
    }

    #[test]
    fn every_option_is_read() {
        let url = url("serial:///dev/a?baud=250001&parity=odd&stop=2&flow=hardware&duplex=half&data=8");
        let port = url.serial().unwrap();
        assert_eq!((port.baud, port.parity, port.two_stop_bits), (250_001, Parity::Odd, true));
        assert!(port.hardware_flow && url.is_half_duplex() && url.baud() == Some(250_001));
    }

    #[test]
    fn a_bridge_has_an_address() {
        let bridge = url("tcp://[::1]:4001?baud=9600");
        assert_eq!(bridge.place(), &Place::Tcp("[::1]:4001".to_owned()));
        assert_eq!((bridge.baud(), bridge.serial()), (Some(9600), None));
        assert_eq!(url("tcp://bridge:1").baud(), None);
    }

    #[test]
    fn a_path_becomes_a_line() {
        let path = |text: &str| LineUrl::from_path(text).unwrap().serial().unwrap().clone();
        assert_eq!(path("/dev/ttyS0?baud=300").baud, 300);
        assert_eq!(path("port").path, std::env::current_dir().unwrap().join("port"));
        assert_eq!(LineUrl::from_path(""), Err(LineUrlError::NoPath));
    }

    #[test]
    fn what_is_no_line_is_told_what_to_write() {
        for (text, words) in [
            ("/dev/ttyUSB0", "write serial:///dev/ttyUSB0"),
            ("serial:/dev/ttyUSB0", "write serial:///dev/ttyUSB0"),
            ("serial://dev/ttyUSB0", "three slashes"),
            ("serial:///", "three slashes"),
            ("usb:///dev/ttyUSB0", "`usb`"),
            ("tcp://host", "tcp://HOST:PORT"),
            ("tcp://:1", "tcp://HOST:PORT"),
            ("tcp://host:0", "tcp://HOST:PORT"),
            ("tcp://host:1?parity=even", "no option `parity` for this line: write baud= or duplex="),
            ("serial:///dev/a?speed=9600", "no option `speed` for this line: write baud=, parity="),
            ("serial:///dev/a?baud=1&baud=2", "`baud` stands there twice"),
            ("serial:///dev/a?baud=fast", "`baud=fast` is not possible: write bits per second"),
            ("serial:///dev/a?baud=0", "`baud=0` is not possible"),
            ("serial:///dev/a?baud=4294967296", "is not possible"),
            ("serial:///dev/a?baud", "`baud=` is not possible"),
            ("serial:///dev/a?parity=mark", "parity=none, parity=even or parity=odd"),
            ("serial:///dev/a?stop=3", "stop=1 or stop=2"),
            ("serial:///dev/a?data=7", "data=8"),
            ("serial:///dev/a?flow=maybe", "flow=none or flow=hardware"),
            ("serial:///dev/a?flow=software", "flow=hardware or flow=none"),
            ("serial:///dev/a?duplex=both", "duplex=full or duplex=half"),
        ] {
            assert!(told(text).contains(words), "{text}: {}", told(text));
        }
    }

    #[test]
    fn the_same_port_is_known_again() {
        let same = |one: &str, two: &str| url(one).is_same_place(&url(two));
        assert!(same("serial:///dev/a", "serial:///dev/a?baud=9600"));
        assert!(same("tcp://a:1", "tcp://a:1?duplex=half"));
        assert!(!same("serial:///dev/a", "serial:///dev/b"));
        assert!(!same("tcp://a:1", "serial:///a:1"));
    }
}
