//! A line between two programs that damages and loses bytes, by a seed.

use std::fmt;
use std::io::{self, BufRead as _, Write};
use std::process::ExitCode;
use std::time::Duration;

use liner_tests::relay::{Config, Port, Rates, Relay, Side};

const USAGE: &str = "\
relay A B [OPTION VALUE]...     passes bytes between two ends, until the end of standard input

An end is pty:LINK, a pseudo-terminal behind this symbolic link; listen:ADDR; or dial:ADDR.
  --seed N                      where all chance comes from [1]
  --bit-errors P                share of bits that are turned [0]
  --read-faults P               share of reads that lose or gain bytes [0]
  --frame-faults P              share of frames that are lost, come twice or are delayed [0]
  --cut-every BYTES             a cut, that often on average [never]
  --stall-every BYTES           a stall, likewise; --stall-max MS is the longest [never, 200]
  --baud N                      bits a second, ten for a byte [as fast as it goes]
On standard input: `counters`, `cut`, `remove a`, `return a`. Each is answered with the counters in one line of JSON,
and so is the end of the input.
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let Some(config) = parse(&words) else {
        return tell(USAGE.trim_end(), 2);
    };
    match work(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => tell(error, 1),
    }
}

fn tell(what: impl fmt::Display, code: u8) -> ExitCode {
    // Nobody is left to tell it to if this fails.
    let _ = writeln!(io::stderr(), "{what}");
    ExitCode::from(code)
}

fn work(config: Config) -> io::Result<()> {
    let relay = Relay::start(config)?;
    let mut out = io::stdout().lock();
    for (name, side) in [("a", Side::A), ("b", Side::B)] {
        if let Some(address) = relay.address(side)? {
            writeln!(out, "{{\"listening\":\"{name}\",\"address\":\"{address}\"}}")?;
        }
    }
    out.flush()?;
    for line in io::stdin().lock().lines() {
        match line?.split_whitespace().collect::<Vec<&str>>()[..] {
            ["counters"] | [] => {}
            ["cut"] => relay.cut()?,
            ["remove", end] => relay.remove(side(end)?)?,
            ["return", end] => relay.bring_back(side(end)?)?,
            _ => return Err(io::Error::other(USAGE.trim_end())),
        }
        writeln!(out, "{}", relay.counters()?)?;
        out.flush()?;
    }
    writeln!(out, "{}", relay.counters()?)
}

fn side(word: &str) -> io::Result<Side> {
    match word {
        "a" => Ok(Side::A),
        "b" => Ok(Side::B),
        _ => Err(io::Error::other("an end is a or b")),
    }
}

fn parse(words: &[&str]) -> Option<Config> {
    let [a, b, options @ ..] = words else { return None };
    let mut config = Config { a: port(a)?, b: port(b)?, seed: 1, rates: Rates::NONE, baud: None };
    let mut options = options.iter();
    while let Some(option) = options.next() {
        let value = options.next()?;
        let rates = &mut config.rates;
        match *option {
            "--seed" => config.seed = value.parse().ok()?,
            "--bit-errors" => rates.bit_errors = value.parse().ok()?,
            "--read-faults" => rates.read_faults = value.parse().ok()?,
            "--frame-faults" => rates.frame_faults = value.parse().ok()?,
            "--cut-every" => rates.cut_every = value.parse().ok()?,
            "--stall-every" => rates.stall_every = value.parse().ok()?,
            "--stall-max" => rates.stall_max = Duration::from_millis(value.parse().ok()?),
            "--baud" => config.baud = Some(value.parse().ok()?),
            _ => return None,
        }
    }
    Some(config)
}

fn port(word: &str) -> Option<Port> {
    let (kind, value) = word.split_once(':')?;
    match kind {
        "pty" => Some(Port::Pty(value.into())),
        "listen" => Some(Port::Listen(value.parse().ok()?)),
        "dial" => Some(Port::Dial(value.parse().ok()?)),
        _ => None,
    }
}
