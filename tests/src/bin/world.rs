//! Runs seeds of the world in virtual time.
fn main() {
    let mut args = std::env::args().skip(1);
    let from: u64 = args.next().and_then(|a| a.parse().ok()).unwrap_or(0);
    let to: u64 = args.next().and_then(|a| a.parse().ok()).unwrap_or(from + 1);
    let trace = to == from + 1;
    for seed in from..to {
        let report = liner_tests::world::run(seed, liner_tests::world::Options { trace, ..Default::default() });
        for line in &report.trace { println!("{line}"); }
        if let Some(v) = &report.violation { println!("seed {seed}: {v} [losses {}]", report.losses); }
        if trace { println!("{:?}", liner_tests::world::Report { trace: Vec::new(), ..report }); }
    }
}
